// Cores and limits from made-up /proc and /sys trees.
#include "sys/machine.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "sys/threads.h"

using namespace nautile;

namespace {

// A root folder to put files into; gone at the end.
class Root {
 public:
  Root() {
    char name[] = "/tmp/nautile_machine_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Root() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void put(const std::string& file, const std::string& text) const {
    const std::filesystem::path at = path_ + file;
    std::filesystem::create_directories(at.parent_path());
    std::ofstream(at) << text << '\n';
  }

 private:
  std::string path_;
};

std::vector<int> first_cpus(int count) {
  std::vector<int> cpus(static_cast<size_t>(count));
  std::iota(cpus.begin(), cpus.end(), 0);
  return cpus;
}

std::string words(const std::vector<Core>& cores) {
  std::string text;
  for (const Core& core : cores) text += fmt::format("{}@{} ", core.cpu, core.node);
  return text;
}

// Two sockets of four cores with two threads each, numbered as Linux does: first every core, then every second thread;
// sockets take turns.
void two_sockets(const Root& root) {
  for (int cpu = 0; cpu < 16; ++cpu) {
    root.put(fmt::format("/sys/devices/system/cpu/cpu{}/topology/core_cpus_list", cpu),
             fmt::format("{},{}", cpu % 8, cpu % 8 + 8));
  }
  root.put("/sys/devices/system/node/node0/cpulist", "0,2,4,6,8,10,12,14");
  root.put("/sys/devices/system/node/node2/cpulist", "1,3,5,7,9,11,13,15");
  root.put("/sys/devices/system/node/node3/cpulist", "");  // memory alone
}

}  // namespace

TEST_CASE("one CPU stands for the threads of a core, and a node without a usable core does not count") {
  const Root root;
  two_sockets(root);
  CHECK(words(read_cores(first_cpus(16), root.path())) == "0@0 2@0 4@0 6@0 1@2 3@2 5@2 7@2 ");
  CHECK(words(read_cores(std::vector<int>{9, 11, 13}, root.path())) == "9@2 11@2 13@2 ");
  CHECK(words(read_cores(std::vector<int>{3, 8, 11}, root.path())) == "8@0 3@2 ");
}

TEST_CASE("a pool has the nodes of the cores that it may use") {
  const Root root;
  two_sockets(root);
  const ThreadPool both(3, read_cores(first_cpus(16), root.path()), false);
  CHECK(both.nodes() == 2);
  CHECK(both.memory_of(1) == 2);
  const ThreadPool one(3, read_cores(std::vector<int>{9, 11, 13}, root.path()), false);  // a cpuset within one
  CHECK(one.nodes() == 1);
  CHECK(one.memory_of(0) == 2);
}

TEST_CASE("what the system hides or garbles is one core a CPU and one node") {
  const Root empty;
  CHECK(words(read_cores(first_cpus(3), empty.path())) == "0@0 1@0 2@0 ");
  const Root odd;
  odd.put("/sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0-x");
  odd.put("/sys/devices/system/cpu/cpu1/topology/core_cpus_list", "7-1");
  odd.put("/sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3");  // Linux before 5.3
  odd.put("/sys/devices/system/node/node0/cpulist", "0-99999999999");
  odd.put("/sys/devices/system/node/nodes/cpulist", "0-3");
  CHECK(words(read_cores(first_cpus(4), odd.path())) == "0@0 1@0 2@0 ");
}

TEST_CASE("limits of version 2: the smallest on the way up; dropped cache is room") {
  const Root root;
  root.put("/proc/self/cgroup", "0::/outer/inner");
  root.put("/sys/fs/cgroup/outer/inner/cpu.max", "max 100000");
  root.put("/sys/fs/cgroup/outer/inner/memory.max", "1000");
  root.put("/sys/fs/cgroup/outer/inner/memory.current", "700");
  root.put("/sys/fs/cgroup/outer/inner/memory.stat", "anon 100\ninactive_file 600");
  root.put("/sys/fs/cgroup/outer/cpu.max", "250000 100000");
  root.put("/sys/fs/cgroup/outer/memory.max", "1200");
  root.put("/sys/fs/cgroup/outer/memory.current", "900");
  const Limits limits = read_limits(root.path());
  CHECK(limits.cpus == 2.5);
  CHECK(limits.memory_bytes == 1000);
  CHECK(limits.memory_left == 300);  // outer: 1200 - 900; inner: 1000 - 100
}

TEST_CASE("limits of version 1, seen from inside a container") {
  const Root root;
  root.put("/proc/self/cgroup", "5:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:cpuset:/docker/abc");
  root.put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000");
  root.put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  root.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000");
  root.put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "6000");
  const Limits limits = read_limits(root.path());
  CHECK(limits.cpus == 1.5);
  CHECK(limits.memory_bytes == 5000);
  CHECK(limits.memory_left == 0);
}

TEST_CASE("no limits") {
  for (const char* text : {"", "0::/", "nonsense", "1:cpu:/\n2:memory:/"}) {
    const Root root;
    root.put("/proc/self/cgroup", text);
    root.put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
    root.put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    root.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
    root.put("/sys/fs/cgroup/memory.max", "max");
    const Limits limits = read_limits(root.path());
    CHECK(limits.cpus == 0);
    CHECK(limits.memory_bytes == 0);
  }
}

TEST_CASE("this machine has a core for the pool, and no more cores than CPUs") {
  CHECK(usable_cores() >= 1);
  CHECK(usable_cores() <= static_cast<int>(allowed_cpus().size()));
}

TEST_CASE("processor time that a virtual machine's host kept") {
  const Root root;
  const std::vector<int> cpus = {1, 10, 12};
  CHECK(stolen_seconds(cpus, root.path()) == 0);
  root.put("/proc/stat",
           "cpu  1 2 3 4 5 6 7 999 0 0\ncpu0 1 2 3 4 5 6 7 500 0 0\ncpu1 1 2 3 4 5 6 7 30 0 0\ncpu10 1 2 3 4 5 6 7 12 0 0\n"
           "cpu12 1 2 3\nctxt 10");
  CHECK(stolen_seconds(cpus, root.path()) == doctest::Approx(42.0 / static_cast<double>(::sysconf(_SC_CLK_TCK))));
  CHECK(stolen_seconds(allowed_cpus()) >= 0);
}
