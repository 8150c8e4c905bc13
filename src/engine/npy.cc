// The header is a Python dictionary literal, padded so that the data starts at a multiple of 64.
#include "engine/npy.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstring>

namespace nautile {

std::string npy_bytes(std::span<const float> values, size_t rows, size_t cols) {
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  const size_t before = 10;
  header.append((64 - (before + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return bytes;
}

Result<FloatMatrix> parse_npy(std::string_view bytes, const std::string& where) {
  if (bytes.size() < 10 || bytes.substr(0, 8) != std::string_view("\x93NUMPY\x01\x00", 8)) {
    return Status(Code::kUnsupported, "not a NumPy 1.0 file", where);
  }
  const size_t length = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  if (bytes.size() < 10 + length) return Status(Code::kCorrupt, "the header is cut off", where);
  const std::string header(bytes.substr(10, length));
  FloatMatrix m;
  const size_t shape = header.find("'shape': (");
  if (header.find("'descr': '<f4'") == std::string::npos ||
      header.find("'fortran_order': False") == std::string::npos || shape == std::string::npos ||
      std::sscanf(header.c_str() + shape, "'shape': (%zu, %zu)", &m.rows, &m.cols) != 2) {
    return Status(Code::kUnsupported, "not a float32 matrix in C order: " + header, where);
  }
  const std::string_view data = bytes.substr(10 + length);
  if (m.cols != 0 && (m.rows > data.size() / 4 / m.cols || data.size() != m.rows * m.cols * 4)) {
    return Status(Code::kCorrupt, fmt::format("{} bytes of data for {} x {} floats", data.size(), m.rows, m.cols),
                  where);
  }
  m.values.resize(m.rows * m.cols);
  std::memcpy(m.values.data(), data.data(), data.size());
  return m;
}

}  // namespace nautile
