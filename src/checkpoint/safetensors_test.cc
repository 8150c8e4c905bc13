// Every way a safetensors file can break its format is an error with file and byte, and the tensor where there is one.
#include "checkpoint/safetensors.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace nautile;

namespace {

std::string file_of(const std::string& json, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t length = json.size();
  std::memcpy(out.data(), &length, 8);
  return out + json + std::string(data_bytes, '\1');
}

Result<SafetensorsHeader> parse(const std::string& file) {
  return parse_safetensors({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "a.safetensors");
}

void check_corrupt(const std::string& file, const char* what, const char* where = "a.safetensors") {
  const Status status = parse(file).status();
  INFO(status.message());
  CHECK(status.code() == Code::kCorrupt);
  CHECK(status.what().find(what) != std::string::npos);
  CHECK(status.where().find(where) != std::string::npos);
  CHECK(status.where().find("a.safetensors") == 0);
  CHECK(status.where().find("byte ") != std::string::npos);
}

constexpr const char* kGood =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[6,10]},)"
    R"("a":{"shape":[3,1],"data_offsets":[0,6],"dtype":"BF16"},"e":{"dtype":"I8","shape":[0,4],"data_offsets":[6,6]}} )";

}  // namespace

TEST_CASE("a header is read in the order of its data") {
  const std::string file = file_of(kGood, 10);
  const auto header = parse(file);
  REQUIRE(header.ok());
  REQUIRE(header.value().tensors.size() == 3);
  const uint64_t data = 8 + std::strlen(kGood);
  const SafetensorsTensor& a = header.value().tensors[0];
  CHECK(a.name == "a");
  CHECK(a.dtype == DType::kBf16);
  CHECK(a.shape == std::vector<int64_t>{3, 1});
  CHECK(a.offset == data);
  CHECK(header.value().tensors[1].name == "e");
  CHECK(header.value().tensors[2].offset == data + 6);
  CHECK(header.value().tensors[2].bytes == 4);
  CHECK(header.value().metadata == std::vector<std::pair<std::string, std::string>>{{"format", "pt"}});
}

TEST_CASE("what is written is read back") {
  const std::vector<SafetensorsTensor> tensors = {{"x\"y", DType::kE8M0, {5}, 0, 5}, {"z", DType::kI64, {2}, 0, 16}};
  const std::string file = safetensors_header(tensors) + std::string(21, 'x');
  const auto header = parse(file);
  REQUIRE(header.ok());
  CHECK(header.value().data_offset % 8 == 0);
  CHECK(header.value().tensors[0].name == "x\"y");
  CHECK(header.value().tensors[1].offset == header.value().data_offset + 5);
}

TEST_CASE("length field") {
  check_corrupt("", "0 bytes");
  check_corrupt("1234567", "7 bytes");
  std::string file = file_of("{}", 0);
  const uint64_t absurd = 100'000'001;
  std::memcpy(file.data(), &absurd, 8);
  check_corrupt(file, "100000001");
  const uint64_t longer = 3;
  std::memcpy(file.data(), &longer, 8);
  check_corrupt(file, "claims 3 bytes");
  const uint64_t all = UINT64_MAX;
  std::memcpy(file.data(), &all, 8);
  check_corrupt(file, "claims");
}

TEST_CASE("every prefix of a good file is refused") {
  const std::string file = file_of(kGood, 10);
  for (size_t size = 0; size < file.size(); ++size) {
    CAPTURE(size);
    CHECK(parse(file.substr(0, size)).status().code() == Code::kCorrupt);
  }
}

TEST_CASE("JSON") {
  check_corrupt(file_of("", 0), "not valid JSON");
  check_corrupt(file_of("{", 0), "not valid JSON");
  check_corrupt(file_of("[]", 0), "object");
  check_corrupt(file_of("{\"a\xff\":{}}", 0), "UTF-8");
  check_corrupt(file_of(R"({"a":1})", 0), "must be an object");
  check_corrupt(file_of(R"({"a":{}})", 0), "\"dtype\" is missing", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[1]}})", 1), "\"data_offsets\" is missing", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","dtype":"I8","shape":[],"data_offsets":[0,1]}})", 1), "twice",
                "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[],"data_offsets":[0,1],"stride":[1]}})", 1), "stride",
                "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[],"data_offsets":[0,1]},"a":{}})", 1), "\"a\" appears twice");
  check_corrupt(file_of(R"({"a":{"dtype":3,"shape":[],"data_offsets":[0,1]}})", 1), "wrong kind", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[-1],"data_offsets":[0,1]}})", 1), "-1", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[1.5],"data_offsets":[0,1]}})", 1), "1.5", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[[1]],"data_offsets":[0,1]}})", 1), "array", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[],"data_offsets":[0]}})", 1), "1 numbers", "tensor a");
  check_corrupt(file_of(R"({"__metadata__":{"x":1}})", 0), "must be a string");
}

TEST_CASE("dtypes, shapes and offsets") {
  check_corrupt(file_of(R"({"a":{"dtype":"FP4","shape":[],"data_offsets":[0,1]}})", 1), "\"FP4\"", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,3]}})", 3), "needs 4 bytes", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}})", 1), "leave", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[2,0]}})", 2), "leave", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1), "no size", "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,1]}})", 1), "no size",
                "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0), "no size",
                "tensor a");
  check_corrupt(file_of(R"({"a":{"dtype":"I8","shape":[99999999999999999999],"data_offsets":[0,1]}})", 1), "9999",
                "tensor a");
  const std::string two = R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],)";
  check_corrupt(file_of(two + R"("data_offsets":[1,3]}})", 3), "overlaps", "tensor b");
  check_corrupt(file_of(two + R"("data_offsets":[3,5]}})", 5), "belong to no tensor", "tensor b");
  check_corrupt(file_of(two + R"("data_offsets":[2,4]}})", 5), "after the last");
}
