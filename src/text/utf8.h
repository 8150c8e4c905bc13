// UTF-8, byte by byte: decoding one code point, and a gate that lets only whole code points through.
//
// Thread-safety: decode_utf8 is a pure function; a Utf8Gate belongs to one thread. Source: spec chat.md 1.3,
// api.md 9.1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace nautile {

struct CodePoint {
  enum Kind : uint8_t {
    kValid,
    kInvalid,     // these bytes can never be part of a code point
    kIncomplete,  // the text ends inside a code point that could still become valid
  };
  uint32_t value = 0;
  uint8_t bytes = 0;  // length; of the maximal broken prefix where not valid. At least 1.
  Kind kind = kInvalid;
};

// The code point at text[at]. Precondition: at < text.size().
CodePoint decode_utf8(std::string_view text, size_t at);

// Length of the longest prefix that is valid UTF-8.
size_t valid_utf8_prefix(std::string_view text);

// Precondition: code_point < 0x110000.
void append_utf8(uint32_t code_point, std::string& out);

// Turns a stream of bytes into valid UTF-8. An unfinished tail (at most 3 bytes) is held back until it is whole; bytes
// that can never become a code point turn into one U+FFFD per maximal broken prefix, as Python's decode(...,
// "replace"). The concatenated output does not depend on how the input was cut.
class Utf8Gate {
 public:
  // Appends to `out` what has become whole.
  void push(std::string_view bytes, std::string& out);
  // The stream has ended: a tail still held becomes one U+FFFD.
  void finish(std::string& out);
  bool holding() const { return !held_.empty(); }

 private:
  std::string held_;
};

}  // namespace nautile
