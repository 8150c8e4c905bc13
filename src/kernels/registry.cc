// The table of kernel versions and the CPU checks in front of them.
#include "kernels/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kernels/amx/kernels.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx512/kernels.h"
#include "kernels/ref/kernels.h"
#include "sys/cpu_features.h"

namespace nautile {
namespace {

struct Version {
  const char* name;
  const char* needs;
  const Kernels* kernels;  // null where it cannot run: not even the code that makes its table may be called there
  const Kernels* other = nullptr;  // of that name, runs here too and is slower
};

std::vector<Version> versions() {
  using avx512::Products;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool dots = avx2 && avx_vnni_usable();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool bytes = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
  const bool bf16 = bytes && __builtin_cpu_supports("avx512bf16");
  const bool amx = bf16 && __builtin_cpu_supports("avx512vbmi2") && matrix_unit_usable();
  // Intel's BF16 dot instruction goes at half the rate of its float multiply-add.
  const bool bf16_first = bf16 && !__builtin_cpu_is("intel");
  const Kernels* chosen = !avx512 ? nullptr : &avx512::kernels(!bytes ? Products::kRows : bf16_first ? Products::kBf16 : Products::kFloat);
  const Kernels* other = bf16 ? &avx512::kernels(bf16_first ? Products::kFloat : Products::kBf16) : nullptr;
  return {{"ref", "nothing", &ref::kernels()},
          {"avx2", "AVX2 and FMA", avx2 ? &avx2::kernels(dots) : nullptr, dots ? &avx2::kernels(false) : nullptr},
          {"avx512", "AVX-512 F, BW, VL and DQ", chosen, other},
          {"amx", "AMX-TILE and AMX-BF16, AVX-512 with VNNI, BF16, VBMI and VBMI2, and Linux 5.16 to allow them",
           amx ? &amx::kernels() : nullptr}};
}

}  // namespace

std::vector<std::string> built_isas() {
  std::vector<std::string> names;
  for (const Version& version : versions()) names.push_back(version.name);
  return names;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Version& version : versions()) {
    if (version.kernels != nullptr) names.push_back(version.name);
  }
  return names;
}

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> all;
  for (const Version& version : versions()) {
    for (const Kernels* kernels : {version.kernels, version.other}) {
      if (kernels != nullptr) all.push_back(kernels);
    }
  }
  return all;
}

Result<const Kernels*> find_kernels(std::string_view isa) {
  const Kernels* best = nullptr;
  std::string problem = fmt::format("there are no kernels \"{}\"", isa);
  for (const Version& version : versions()) {
    if (isa == version.name) {
      if (version.kernels != nullptr) return version.kernels;
      problem = fmt::format("this machine cannot run the {} kernels, which need {}", isa, version.needs);
    }
    if (version.kernels != nullptr) best = version.kernels;
  }
  if (isa == "auto") return best;
  return Status(Code::kInvalidArgument, std::move(problem), "--isa",
                fmt::format("choose auto or one of: {}", fmt::join(available_isas(), ", ")));
}

}  // namespace nautile
