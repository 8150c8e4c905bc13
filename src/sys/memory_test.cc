// Memory lies on the node that was asked for, as far as this machine has nodes to choose from.
#include "sys/memory.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <vector>

#include "sys/memory_for_test.h"

using namespace nautile;

namespace {

constexpr size_t kBytes = 8 << 20;

// Memory nodes by the system's numbers.
std::set<int> memory_nodes() {
  std::set<int> nodes;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/node", none)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("node")) nodes.insert(std::stoi(name.substr(4)));
  }
  return nodes;
}

}  // namespace

TEST_CASE("pages are aligned, zero and on the node that was named") {
  size_t checked = 0;
  for (const int node : memory_nodes()) {
    auto made = large_pages(kBytes, node);
    REQUIRE(made.ok());
    std::byte* data = made.value().get();
    CHECK(reinterpret_cast<uintptr_t>(data) % (2 << 20) == 0);
    CHECK(data[kBytes - 1] == std::byte{});
    std::memset(data, 1, kBytes);
    const std::optional<std::set<int>> found = nodes_of(data, kBytes);
    if (!found || preferred_node(data) < 0) continue;  // the system does not let us ask
    CHECK(preferred_node(data) == node);
    CHECK(*found == std::set<int>{node});
    ++checked;
  }
  MESSAGE(checked, " nodes checked");
}

TEST_CASE("a node that is not there is no error") {
  for (const int node : {777, 1024, 1 << 20}) {
    auto made = large_pages(kBytes, node);
    REQUIRE(made.ok());
    std::memset(made.value().get(), 1, kBytes);
  }
}

TEST_CASE("touching pages fetches each of the range and reads nothing beyond it") {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE)), bytes = 40 * page;
  auto* data = static_cast<std::byte*>(
      ::mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  REQUIRE(static_cast<void*>(data) != MAP_FAILED);
  ::madvise(data, bytes, MADV_NOHUGEPAGE);
  REQUIRE(::mprotect(data + bytes, page, PROT_NONE) == 0);
  // From within the second page to the end: touching the page behind it would end the process.
  const TouchedPages touched = touch_pages(data + page + 100, bytes - page - 100);
  CHECK(touched.pieces == (bytes - page - 100 + (64 << 10) - 1) / (64 << 10));
  CHECK(touched.waited <= touched.pieces);
  std::vector<unsigned char> there(bytes / page);
  REQUIRE(::mincore(data, bytes, there.data()) == 0);
  for (size_t i = 0; i < there.size(); ++i) CHECK((there[i] & 1) == (i == 0 ? 0 : 1));
  ::munmap(data, bytes + page);
  CHECK(touch_pages(nullptr, 0).pieces == 0);
}
