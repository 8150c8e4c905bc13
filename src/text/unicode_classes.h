// Character classes of the V4 pre-tokenizer: letter, mark, number, punctuation, symbol, white space.
//
// The classes are those of the reference regex engine (Oniguruma, Unicode 16), not of the C library or PCRE2, whose
// Unicode is older. Thread-safety: immutable after construction. Source: spec chat.md 1.2.
#pragma once

#include <cstdint>
#include <vector>

namespace nautile {

class UnicodeClasses {
 public:
  enum Class : uint8_t { kNone, kLetter, kMark, kNumber, kPunctuation, kSymbol, kSpace };

  UnicodeClasses();
  // Precondition: code_point < 0x110000.
  Class of(uint32_t code_point) const { return classes_[code_point]; }

 private:
  std::vector<Class> classes_;  // [0x110000]: 1.1 MB, of which text touches a few pages
};

}  // namespace nautile
