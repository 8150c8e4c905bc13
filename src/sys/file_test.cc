// Files: what is written is read back, what cannot be is said with its path.
#include "sys/file.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>

using namespace nautile;

TEST_CASE("write, read, map and list agree") {
  char name[] = "/tmp/nautile_file_XXXXXX";
  const std::string dir = mkdtemp(name);
  auto files = real_files();
  const std::string path = join_path(dir, "a.bin");
  REQUIRE(files->write(path, "12345").ok());
  CHECK(files->read(path, 5).value() == "12345");
  CHECK(files->read(path, 4).status().code() == Code::kResourceExhausted);
  CHECK(files->map(path)->bytes().size() == 5);
  REQUIRE(files->write(path, "").ok());
  CHECK(files->map(path)->bytes().empty());
  CHECK(files->list(dir).value() == std::vector<std::string>{"a.bin"});
  CHECK(files->read(join_path(dir, "none"), 9).status().code() == Code::kNotFound);
  CHECK(files->map(dir).status().code() == Code::kInvalidArgument);
  CHECK_FALSE(files->write(join_path(dir, "no/such"), "x").ok());
  std::filesystem::remove_all(dir);
}
