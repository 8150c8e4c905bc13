// mmap and madvise.
#include "sys/memory.h"

#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "sys/clock.h"

namespace nautile {

Result<std::shared_ptr<std::byte>> large_pages(size_t bytes, int node) {
  constexpr size_t kLarge = 2u << 20;
  const size_t size = std::max<size_t>(bytes, 1) + kLarge;
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Status(Code::kResourceExhausted, fmt::format("no room for {} bytes", bytes), "memory");
  }
  ::madvise(data, size, MADV_HUGEPAGE);
  constexpr int kNodes = 1024;  // the most that Linux can be built for
  if (node >= 0 && node < kNodes) {
    // Preferred, not bound: a full node is slow, a dead process is worse. Containers often forbid the call.
    constexpr size_t kBits = 8 * sizeof(unsigned long);
    unsigned long mask[kNodes / kBits] = {};
    mask[static_cast<size_t>(node) / kBits] = 1ul << static_cast<size_t>(node) % kBits;
    ::syscall(SYS_mbind, data, size, MPOL_PREFERRED, mask, kNodes + 1, 0);
  }
  const size_t skip = (kLarge - reinterpret_cast<uintptr_t>(data) % kLarge) % kLarge;
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(data) + skip, [data, size](std::byte*) { ::munmap(data, size); });
}

void release_pages(const void* data, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void prefetch_pages(const void* data, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page, end = reinterpret_cast<uintptr_t>(data) + bytes;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

Status populate_pages(const void* data, size_t bytes) {
#ifdef MADV_POPULATE_READ
  constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
  constexpr int kPopulateRead = 22;  // Linux 5.14
#endif
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes + page - 1) / page * page;
  void* start = reinterpret_cast<void*>(begin);
  ::madvise(start, end - begin, MADV_HUGEPAGE);  // where it is not known, nothing is lost
  while (::madvise(start, end - begin, kPopulateRead) != 0) {
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EINVAL || errno == ENOSYS) return {};
    return {Code::kIo, fmt::format("cannot read: {}", std::strerror(errno == EFAULT ? EIO : errno))};
  }
  return {};
}

TouchedPages touch_pages(const void* data, size_t bytes) {
  constexpr size_t kPage = 4096, kPiece = 64 << 10;
  constexpr double kWait = 8e-6;
  const auto* at = static_cast<const volatile char*>(data);
  TouchedPages touched;
  double before = seconds_now();
  for (size_t begin = 0; begin < bytes; begin += kPiece) {
    const size_t end = std::min(bytes, begin + kPiece);
    for (size_t i = begin; i < end; i += kPage) static_cast<void>(at[i]);
    static_cast<void>(at[end - 1]);
    const double now = seconds_now();
    touched.waited += now - before >= kWait;
    ++touched.pieces;
    before = now;
  }
  return touched;
}

ProcessMemory process_memory() {
  ProcessMemory found;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    const auto take = [&](const char* key, size_t& value) {
      if (line.starts_with(key)) value = std::strtoull(line.c_str() + std::strlen(key), nullptr, 10) << 10;
    };
    take("VmHWM:", found.peak);
    take("RssAnon:", found.anonymous);
    take("RssFile:", found.file);
  }
  return found;
}

void reset_peak_memory() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace nautile
