// Pages of memory: large ones taken, used ones given back.
//
// Thread-safety: pure functions of the address space; distinct ranges may be handled at the same time.
#pragma once

#include <cstddef>
#include <memory>

#include "base/status.h"

namespace nautile {

// `bytes` zeroed bytes, aligned to 2 MiB, in pages of that size where the system gives them. Memory is taken as it is
// written, on the node of the thread that writes; with a `node` (the system's number) on that one, whoever writes, as long
// as it has room and the system lets us ask. kResourceExhausted when the system has no room.
Result<std::shared_ptr<std::byte>> large_pages(size_t bytes, int node = -1);

// Takes the whole pages within the range out of memory. A mapped file can still be read there; memory that belongs to no
// file reads as zero from now on.
void release_pages(const void* data, size_t bytes);

// Starts reading a range of a mapped file from the disk, without waiting. Nothing else changes.
void prefetch_pages(const void* data, size_t bytes);

// Maps the pages of a range of a mapped file, large ones where its file system has them in memory as such, reading from
// the disk what is not. kIo when that fails: touching the range would end the process. On systems that cannot tell, ok.
Status populate_pages(const void* data, size_t bytes);

// Reads a byte of each page of the range. The host of a virtual machine may take pages away that it has not seen used for a while,
// to move them, and gives one back when it is touched: 5 to 200 us each. Returns how many pieces of 64 KB (the last may be
// shorter) had to wait, 8 us or more, where one with all its pages takes 1 or 2.
struct TouchedPages {
  size_t pieces = 0, waited = 0;
};
TouchedPages touch_pages(const void* data, size_t bytes);

// What this process has of the machine's memory, in bytes; 0 where the system does not say.
struct ProcessMemory {
  size_t peak = 0;                 // the most at once, pages of mapped files with it, since the start or the last reset
  size_t anonymous = 0, file = 0;  // now
};
ProcessMemory process_memory();
// Peaks count from now on, where the system can.
void reset_peak_memory();

}  // namespace nautile
