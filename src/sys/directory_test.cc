// A private directory on the real file system: its rights, its atomic steps, and what it refuses.
#include "sys/directory.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "sys/file.h"

using namespace nautile;

namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

}  // namespace

TEST_CASE("a private directory is made for this user alone, and one that others may enter is refused") {
  char name[] = "/tmp/nautile_directory_XXXXXX";
  const std::string top = mkdtemp(name), path = join_path(top, "a/b");
  {
    auto made = open_private_directory(path);
    REQUIRE(made.ok());
    CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::all) ==
          std::filesystem::perms::owner_all);
  }
  ::chmod(path.c_str(), 0750);
  const Status refused = open_private_directory(path).status();
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.fix() == "chmod 700 it");
  REQUIRE(real_files()->write(join_path(top, "file"), "x").ok());
  CHECK_FALSE(open_private_directory(join_path(top, "file")).ok());
  if (::geteuid() == 0) {
    ::chmod(path.c_str(), 0700);
    REQUIRE(::chown(path.c_str(), 4321, static_cast<gid_t>(-1)) == 0);
    CHECK(open_private_directory(path).status().code() == Code::kInvalidArgument);
  }
  std::filesystem::remove_all(top);
}

TEST_CASE("files are created, named, read, aged and removed; links and other users' files are not ours") {
  char name[] = "/tmp/nautile_directory_XXXXXX";
  const std::string path = mkdtemp(name);
  auto opened = open_private_directory(path);
  REQUIRE(opened.ok());
  Directory& directory = **opened;
  const int64_t stamp = directory.change_stamp().value();
  REQUIRE(directory.create("a", bytes_of("12345")).ok());
  CHECK(directory.create("a", bytes_of("1")).code() == Code::kInvalidArgument);
  CHECK(directory.read("a", 5).value() == bytes_of("12345"));
  CHECK(directory.read("a", 4).status().code() == Code::kResourceExhausted);
  CHECK(directory.read("none", 4).status().code() == Code::kNotFound);
  CHECK(directory.change_stamp().value() != stamp);

  REQUIRE(directory.create("b", bytes_of("6")).ok());
  CHECK(directory.rename_new("b", "a").code() == Code::kInvalidArgument);
  CHECK(directory.read("a", 9).value() == bytes_of("12345"));
  CHECK(directory.rename_new("b", "c").ok());
  CHECK(directory.rename("c", "a").ok());
  CHECK(directory.read("a", 9).value() == bytes_of("6"));
  CHECK(directory.set_modified("a", 77).ok());
  CHECK(directory.sync().ok());

  REQUIRE(::symlink("a", join_path(path, "link").c_str()) == 0);
  CHECK_FALSE(directory.read("link", 9).ok());
  auto entries = directory.list().value();
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].name == "a");
  CHECK(entries[0].bytes == 1);
  CHECK(entries[0].modified_s == 77);
  CHECK(entries[0].ours);
  CHECK_FALSE(entries[1].ours);
  if (::geteuid() == 0) {
    REQUIRE(::chown(join_path(path, "a").c_str(), 4321, static_cast<gid_t>(-1)) == 0);
    CHECK(directory.read("a", 9).status().code() == Code::kInvalidArgument);
    CHECK_FALSE(directory.list().value()[0].ours);
  }
  CHECK(directory.remove("a").ok());
  CHECK(directory.remove("a").code() == Code::kNotFound);
  std::filesystem::remove_all(path);
}
