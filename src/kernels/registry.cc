// The table of kernel versions and the CPU checks in front of them.
#include "kernels/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kernels/avx2/kernels.h"
#include "kernels/avx512/kernels.h"
#include "kernels/ref/kernels.h"

namespace nautile {
namespace {

struct Version {
  const Kernels* kernels;
  bool runs_here;
};

std::vector<Version> versions() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool dot_products = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
                            __builtin_cpu_supports("avx512vbmi");
  return {{&ref::kernels(), true}, {&avx2::kernels(), avx2}, {&avx512::kernels(dot_products), avx512}};
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Version& version : versions()) {
    if (version.runs_here) names.push_back(version.kernels->name);
  }
  return names;
}

Result<const Kernels*> find_kernels(std::string_view isa) {
  const Kernels* best = nullptr;
  for (const Version& version : versions()) {
    if (!version.runs_here) continue;
    if (isa == version.kernels->name) return version.kernels;
    best = version.kernels;
  }
  if (isa == "auto") return best;
  return Status(Code::kInvalidArgument, fmt::format("no kernels \"{}\" for this CPU", isa), "--isa",
                fmt::format("choose auto or one of: {}", fmt::join(available_isas(), ", ")));
}

}  // namespace nautile
