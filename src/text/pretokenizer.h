// Cuts text into the pieces inside which BPE merges: a sequence of regex splits, each match and each gap its own piece.
//
// The three expressions of DeepSeek-V4 are run by a hand-written scanner (linear in the text, whatever it holds); any
// other list of expressions is run by PCRE2. Bytes that are not UTF-8 form pieces of their own and the text on either
// side is split as if it stood alone; the reference cannot see such text at all.
// Thread-safety: split() may be called from several threads. Source: spec chat.md 1.2.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/unicode_classes.h"

namespace nautile {

// Ends of the pieces in bytes, ascending; the last is the text's length. Empty for empty text.
using PieceEnds = std::vector<size_t>;

class Pretokenizer {
 public:
  enum class Engine { kFastest, kPcre2 };

  // kUnsupported, naming the expression, if PCRE2 does not take it. kPcre2 keeps the scanner out (tests compare both).
  static Result<Pretokenizer> compile(const std::vector<std::string>& expressions, Engine engine = Engine::kFastest);
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;
  ~Pretokenizer();

  // Appends the ends to `ends`. kResourceExhausted if an expression needs more steps than PCRE2 is given (never with
  // the scanner).
  Status split(std::string_view text, PieceEnds& ends) const;
  bool uses_scanner() const { return scanner_; }

 private:
  struct Expressions;
  Pretokenizer();
  void scan(std::string_view text, size_t base, PieceEnds& ends) const;
  size_t scan_rest(std::string_view region, size_t at) const;
  Status match(std::string_view text, size_t base, PieceEnds& ends) const;

  bool scanner_ = false;
  UnicodeClasses classes_;
  std::unique_ptr<Expressions> expressions_;
};

// The three expressions of DeepSeek-V3 and V4.
std::vector<std::string> v4_split_expressions();

}  // namespace nautile
