// Text files of /proc and /sys to cores and limits.
#include "sys/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>

namespace nautile {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "0-3,8,10-11"; empty when any part is not a number or a range of CPUs.
std::set<int> cpu_list(std::string_view text) {
  constexpr uint64_t kMost = 1 << 16;
  std::set<int> cpus;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    const size_t dash = part.find('-');
    const auto first = number(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (!first || !last || *first > *last || *last >= kMost) return {};
    for (uint64_t cpu = *first; cpu <= *last; ++cpu) cpus.insert(static_cast<int>(cpu));
  }
  return cpus;
}

std::map<int, int> nodes_by_cpu(const std::string& root) {
  std::map<int, int> nodes;
  const std::filesystem::path folder = root + "/sys/devices/system/node";
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("node")) continue;
    const auto node = number(std::string_view(name).substr(4));
    if (!node) continue;
    for (int cpu : cpu_list(first_line(entry.path() / "cpulist"))) nodes[cpu] = static_cast<int>(*node);
  }
  return nodes;
}

// A value under a key in a file of "key value" lines.
uint64_t value_of(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string name;
  uint64_t value = 0;
  while (file >> name >> value) {
    if (name == key) return value;
  }
  return 0;
}

void smallest(uint64_t& least, uint64_t value) {
  least = least == 0 ? value : std::min(least, value);
}

void limit_memory(Limits& limits, uint64_t most, uint64_t used, uint64_t droppable) {
  limits.memory_left = limits.memory_bytes == 0 ? most : limits.memory_left;
  smallest(limits.memory_bytes, most);
  used -= std::min(used, droppable);
  limits.memory_left = std::min(limits.memory_left, most - std::min(most, used));
}

void limit_cpus(Limits& limits, uint64_t quota, uint64_t period) {
  if (period == 0) return;
  const double cpus = static_cast<double>(quota) / static_cast<double>(period);
  limits.cpus = limits.cpus == 0 ? cpus : std::min(limits.cpus, cpus);
}

// One group of version 2.
void read_group(Limits& limits, const std::string& group) {
  const std::string cpu = first_line(group + "/cpu.max");
  const size_t space = cpu.find(' ');
  if (const auto quota = number(cpu.substr(0, space)); quota && space != std::string::npos) {
    limit_cpus(limits, *quota, number(std::string_view(cpu).substr(space + 1)).value_or(0));
  }
  if (const auto most = number(first_line(group + "/memory.max"))) {
    limit_memory(limits, *most, number(first_line(group + "/memory.current")).value_or(0),
                 value_of(group + "/memory.stat", "inactive_file"));
  }
}

void read_cpu_group_v1(Limits& limits, const std::string& group) {
  const auto quota = number(first_line(group + "/cpu.cfs_quota_us"));  // -1 for none
  if (quota) limit_cpus(limits, *quota, number(first_line(group + "/cpu.cfs_period_us")).value_or(0));
}

void read_memory_group_v1(Limits& limits, const std::string& group) {
  constexpr uint64_t kNone = uint64_t{1} << 60;  // "no limit" is the largest multiple of a page
  const auto most = number(first_line(group + "/memory.limit_in_bytes"));
  if (!most || *most >= kNone) return;
  limit_memory(limits, *most, number(first_line(group + "/memory.usage_in_bytes")).value_or(0),
               value_of(group + "/memory.stat", "total_inactive_file"));
}

// The group at `path` below `mount` and each one above it; inside a container only the mount itself may be visible.
template <class Read>
void each_group(const std::string& mount, std::string path, Read read) {
  while (!path.empty() && path != "/") {
    read(mount + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  read(mount);
}

}  // namespace

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

std::vector<Core> read_cores(std::span<const int> cpus, const std::string& root) {
  const std::map<int, int> nodes = nodes_by_cpu(root);
  std::set<int> seen;
  std::vector<Core> cores;
  for (int cpu : cpus) {
    if (seen.contains(cpu)) continue;
    const std::string topology = fmt::format("{}/sys/devices/system/cpu/cpu{}/topology/", root, cpu);
    std::string siblings = first_line(topology + "core_cpus_list");  // since Linux 5.3
    if (siblings.empty()) siblings = first_line(topology + "thread_siblings_list");
    seen.merge(cpu_list(siblings));
    const auto node = nodes.find(cpu);
    cores.push_back({cpu, node == nodes.end() ? 0 : node->second});
  }
  std::stable_sort(cores.begin(), cores.end(), [](const Core& a, const Core& b) { return a.node < b.node; });
  return cores;
}

Limits read_limits(const std::string& root) {
  Limits limits;
  const std::string mount = root + "/sys/fs/cgroup";
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "4:memory:/path", version 2 "0::/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string kinds = "," + line.substr(first + 1, second - first - 1) + ",", path = line.substr(second + 1);
    if (kinds == ",,") each_group(mount, path, [&](const std::string& group) { read_group(limits, group); });
    if (kinds.find(",cpu,") != std::string::npos) {
      each_group(mount + "/cpu", path, [&](const std::string& group) { read_cpu_group_v1(limits, group); });
    }
    if (kinds.find(",memory,") != std::string::npos) {
      each_group(mount + "/memory", path, [&](const std::string& group) { read_memory_group_v1(limits, group); });
    }
  }
  return limits;
}

double stolen_seconds(std::span<const int> cpus, const std::string& root) {
  std::ifstream file(root + "/proc/stat");
  std::string line;
  uint64_t ticks = 0;
  while (std::getline(file, line)) {  // "cpu0 user nice system idle iowait irq softirq steal ..."
    std::istringstream words(line);
    std::string name;
    uint64_t value = 0;
    words >> name;
    const auto cpu = name.starts_with("cpu") ? number(std::string_view(name).substr(3)) : std::nullopt;
    if (!cpu || std::find(cpus.begin(), cpus.end(), static_cast<int>(*cpu)) == cpus.end()) continue;
    constexpr int kSteal = 8;
    int field = 0;
    while (field < kSteal && words >> value) ++field;
    if (field == kSteal) ticks += value;
  }
  return static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

int usable_cores() {
  const int cores = static_cast<int>(read_cores(allowed_cpus()).size());
  const double quota = read_limits().cpus;
  return std::max(1, quota > 0 ? std::min(cores, static_cast<int>(quota)) : cores);
}

}  // namespace nautile
