// Pages of memory: large ones taken, used ones given back.
//
// Thread-safety: pure functions of the address space; distinct ranges may be handled at the same time.
#pragma once

#include <cstddef>
#include <memory>

#include "base/status.h"

namespace nautile {

// `bytes` zeroed bytes, aligned to 2 MiB, in pages of that size where the system gives them. Memory is taken as it is
// written, on the node of the thread that writes. kResourceExhausted when the system has no room.
Result<std::shared_ptr<std::byte>> large_pages(size_t bytes);

// Takes the whole pages within the range out of memory. A mapped file can still be read there; memory that belongs to no
// file reads as zero from now on.
void release_pages(const void* data, size_t bytes);

// Maps the pages of a range of a mapped file, large ones where its file system has them in memory as such, reading from
// the disk what is not. kIo when that fails: touching the range would end the process. On systems that cannot tell, ok.
Status populate_pages(const void* data, size_t bytes);

}  // namespace nautile
