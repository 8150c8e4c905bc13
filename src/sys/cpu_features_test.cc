// Against what Linux lists: an oracle that asks the CPU by itself.
#include "sys/cpu_features.h"

#include <doctest/doctest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace nautile {
namespace {

std::set<std::string> listed_flags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::set<std::string> flags;
    for (std::string word; words >> word;) flags.insert(word);
    return flags;
  }
  return {};
}

TEST_CASE("features are those that Linux lists") {
  const std::set<std::string> flags = listed_flags();
  if (flags.empty()) return;  // no /proc, or not an x86
  CHECK(avx_vnni_usable() == (flags.count("avx_vnni") == 1));
  const bool unit = flags.count("amx_tile") == 1 && flags.count("amx_bf16") == 1;
  if (matrix_unit_usable()) CHECK(unit);  // Linux may refuse the registers all the same
  if (!unit) CHECK_FALSE(matrix_unit_usable());
}

}  // namespace
}  // namespace nautile
