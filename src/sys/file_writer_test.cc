// FileWriter: a file appears whole or not at all, and one writer has it at a time.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sys/file.h"
#include "sys/memory.h"

using namespace nautile;

namespace {

struct Folder {
  Folder() {
    char name[] = "/tmp/nautile_writer_XXXXXX";
    path = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

TEST_CASE("a file written in pieces appears when it is finished") {
  const Folder folder;
  auto files = real_files();
  const std::string path = join_path(folder.path, "a");
  {
    auto writer = files->create(path, 6);
    REQUIRE(writer.ok());
    REQUIRE((*writer)->write(3, bytes_of("def")).ok());
    REQUIRE((*writer)->write(0, bytes_of("abc")).ok());
    CHECK_FALSE(files->exists(path));
    REQUIRE((*writer)->finish().ok());
    CHECK(files->read(path, 6).value() == "abcdef");
  }
  CHECK(files->list(folder.path).value() == std::vector<std::string>{"a"});
  CHECK(files->map(path)->modified_ns() > 0);
  // It replaces what was there, and whoever has that mapped keeps it.
  const auto before = files->map(path);
  {
    auto writer = files->create(path, 2);
    REQUIRE((*writer)->write(0, bytes_of("xy")).ok());
    REQUIRE((*writer)->finish().ok());
  }
  CHECK(files->read(path, 6).value() == "xy");
  CHECK(before.ok());
}

TEST_CASE("an unfinished file goes, and one writer has it at a time") {
  const Folder folder;
  auto files = real_files();
  const std::string path = join_path(folder.path, "a");
  {
    auto first = files->create(path, 10);
    REQUIRE(first.ok());
    const auto second = files->create(path, 10);
    CHECK(second.status().code() == Code::kIo);
    CHECK(second.status().what().find("another process") != std::string::npos);
    CHECK(files->exists(path + ".partial"));
  }
  CHECK(files->list(folder.path)->empty());
  // What a killed process left is taken over.
  std::ofstream(path + ".partial") << "the beginning of something longer";
  {
    auto writer = files->create(path, 3);
    REQUIRE(writer.ok());
    REQUIRE((*writer)->write(0, bytes_of("new")).ok());
    REQUIRE((*writer)->finish().ok());
  }
  CHECK(files->read(path, 9).value() == "new");
  CHECK(files->list(folder.path).value() == std::vector<std::string>{"a"});
}

TEST_CASE("a file that does not fit or has no place leaves nothing") {
  const Folder folder;
  auto files = real_files();
  CHECK(files->create(join_path(folder.path, "a"), uint64_t{1} << 52).status().code() == Code::kResourceExhausted);
  CHECK_FALSE(files->create(join_path(folder.path, "no/such"), 1).ok());
  CHECK_FALSE(files->create("/proc/nautile", 1).ok());
  // The place is a directory: known at the end only.
  std::filesystem::create_directory(join_path(folder.path, "d"));
  {
    auto writer = files->create(join_path(folder.path, "d"), 1);
    REQUIRE(writer.ok());
    CHECK_FALSE((*writer)->finish().ok());
  }
  CHECK(files->list(folder.path).value() == std::vector<std::string>{"d"});
}

TEST_CASE("a file that was cut after it was mapped is an error, not the end of the process") {
  const Folder folder;
  auto files = real_files();
  const std::string path = join_path(folder.path, "a");
  REQUIRE(files->write(path, std::string(1 << 20, 'a')).ok());
  const auto mapped = files->map(path);
  REQUIRE(mapped.ok());
  const std::span<const std::byte> bytes = mapped.value().bytes();
  CHECK(populate_pages(bytes.data(), bytes.size()).ok());
  std::filesystem::resize_file(path, 4096);
  CHECK_FALSE(populate_pages(bytes.data(), bytes.size()).ok());
  const ProcessMemory memory = process_memory();
  CHECK(memory.peak >= memory.anonymous);
  CHECK(memory.anonymous > 0);
}
