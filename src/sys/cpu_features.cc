// What the CPU says (CPUID), what the system saves (XCR0), and the request for the tile registers.
#include "sys/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdint>

namespace nautile {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kBf16 = 1u << 22, kTile = 1u << 24;  // CPUID 7.0, EDX
constexpr uint32_t kSavedBySystem = 1u << 27;           // CPUID 1, ECX: OSXSAVE
constexpr uint32_t kAvxVnni = 1u << 4;                  // CPUID 7.1, EAX
constexpr uint32_t kTileState = 3u << 17;               // XCR0: configuration and data
constexpr long kRequest = 0x1023, kTileData = 18;       // ARCH_REQ_XCOMP_PERM, its feature number

uint32_t extended_control() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool ask() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & kSavedBySystem) == 0) return false;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr uint32_t kAll = kBf16 | kTile;
  if ((edx & kAll) != kAll || (extended_control() & kTileState) != kTileState) return false;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

bool avx_vnni() {
  __builtin_cpu_init();
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  // That the system saves the registers is in the answer for AVX2.
  return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnni) != 0;
}
#else
bool ask() {
  return false;
}
bool avx_vnni() {
  return false;
}
#endif

}  // namespace

bool matrix_unit_usable() {
  static const bool answer = ask();
  return answer;
}

bool avx_vnni_usable() {
  static const bool answer = avx_vnni();
  return answer;
}

}  // namespace nautile
