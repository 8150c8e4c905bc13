// The scanner for the V4 expressions and the PCRE2 driver for all others.
#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "text/utf8.h"

namespace nautile {
namespace {

using Class = UnicodeClasses::Class;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using PcreCode = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;

// Enough for a megabyte-long piece under an expression that backtracks linearly; ends one that does so exponentially.
constexpr uint32_t kMatchSteps = 50'000'000;
constexpr uint32_t kHeapKib = 1 << 20;
constexpr size_t kMaxExpressionBytes = 16 << 10;

bool is_newline(uint32_t c) {
  return c == '\n' || c == '\r';
}
bool is_ascii_letter(uint32_t c) {
  return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}
bool is_ascii_mark(uint32_t c) {
  return c > 0x20 && c < 0x7F && !is_ascii_letter(c) && !(c >= '0' && c <= '9');
}
// Expression B: han, hiragana, katakana.
bool is_cjk(uint32_t c) {
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x4E00 && c <= 0x9FA5);
}

}  // namespace

struct Pretokenizer::Expressions {
  std::vector<PcreCode> codes;
  std::vector<std::string> sources;
};

Pretokenizer::Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;
Pretokenizer::~Pretokenizer() = default;

std::vector<std::string> v4_split_expressions() {
  return {R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
          R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
          "\r\n"
          R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
          "\r\n"
          R"(]*|\s*[)"
          "\r\n"
          R"(]+|\s+(?!\S)|\s+)"};
}

Result<Pretokenizer> Pretokenizer::compile(const std::vector<std::string>& expressions, Engine engine) {
  Pretokenizer made;
  if (engine == Engine::kFastest && expressions == v4_split_expressions()) {
    made.scanner_ = true;
    return made;
  }
  made.expressions_ = std::make_unique<Expressions>();
  CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_max_pattern_length(context.get(), kMaxExpressionBytes);
  for (const std::string& expression : expressions) {
    int error = 0;
    PCRE2_SIZE at = 0;
    PcreCode code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, context.get()));
    if (code == nullptr) {
      PCRE2_UCHAR why[256] = {};
      pcre2_get_error_message(error, why, sizeof why);
      return Status(Code::kUnsupported,
                    fmt::format("the split expression \"{}\" is not one PCRE2 takes: {}", expression,
                                reinterpret_cast<const char*>(why)),
                    fmt::format("byte {} of the expression", at));
    }
    // Without JIT (no executable memory allowed, say) the interpreter gives the same matches.
    (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    made.expressions_->codes.push_back(std::move(code));
    made.expressions_->sources.push_back(expression);
  }
  return made;
}

Status Pretokenizer::split(std::string_view text, PieceEnds& ends) const {
  size_t base = 0;
  while (base < text.size()) {
    const size_t good = valid_utf8_prefix(text.substr(base));
    if (good > 0) {
      if (scanner_) {
        scan(text.substr(base, good), base, ends);
      } else {
        NAUTILE_RETURN_IF_ERROR(match(text.substr(base, good), base, ends));
      }
      base += good;
    }
    const size_t broken = base;
    while (base < text.size()) {
      const CodePoint c = decode_utf8(text, base);
      if (c.kind == CodePoint::kValid) break;
      base += c.bytes;
    }
    if (base > broken) ends.push_back(base);
  }
  return {};
}

// Expressions A and B cut `text` into regions; C cuts each region. No digit reaches C beside other characters.
void Pretokenizer::scan(std::string_view text, size_t base, PieceEnds& ends) const {
  size_t at = 0;
  while (at < text.size()) {
    const CodePoint first = decode_utf8(text, at);
    if (classes_.of(first.value) == Class::kNumber) {  // A: up to three
      size_t end = at + first.bytes;
      for (int digits = 1; digits < 3 && end < text.size(); ++digits) {
        const CodePoint c = decode_utf8(text, end);
        if (classes_.of(c.value) != Class::kNumber) break;
        end += c.bytes;
      }
      ends.push_back(base + end);
      at = end;
      continue;
    }
    const bool cjk = is_cjk(first.value);
    size_t end = at + first.bytes;
    while (end < text.size()) {
      const CodePoint c = decode_utf8(text, end);
      if (is_cjk(c.value) != cjk || classes_.of(c.value) == Class::kNumber) break;
      end += c.bytes;
    }
    const std::string_view region = text.substr(at, end - at);
    size_t done = 0, piece = 0;
    while (done < region.size()) {
      const size_t match_end = scan_rest(region, done);
      if (match_end == done) {  // nothing matches here: one more character of a gap
        done += decode_utf8(region, done).bytes;
        continue;
      }
      if (done > piece) ends.push_back(base + at + done);
      ends.push_back(base + at + match_end);
      piece = done = match_end;
    }
    if (done > piece) ends.push_back(base + at + done);
    at = end;
  }
}

// End of the match of expression C at region[at], or `at` if there is none.
size_t Pretokenizer::scan_rest(std::string_view region, size_t at) const {
  const auto run = [&](size_t from, auto&& wanted) {
    while (from < region.size()) {
      const CodePoint c = decode_utf8(region, from);
      if (!wanted(c.value, classes_.of(c.value))) break;
      from += c.bytes;
    }
    return from;
  };
  const auto letter_or_mark = [](uint32_t, Class k) { return k == Class::kLetter || k == Class::kMark; };
  const auto punctuation = [](uint32_t, Class k) { return k == Class::kPunctuation || k == Class::kSymbol; };
  const auto newline = [](uint32_t c, Class) { return is_newline(c); };

  const CodePoint first = decode_utf8(region, at);
  const Class kind = classes_.of(first.value);
  const size_t next = at + first.bytes;
  // [!"#...~][A-Za-z]+
  if (is_ascii_mark(first.value)) {
    const size_t end = run(next, [](uint32_t c, Class) { return is_ascii_letter(c); });
    if (end > next) return end;
  }
  // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
  if (letter_or_mark(first.value, kind)) return run(next, letter_or_mark);
  if (!punctuation(first.value, kind) && !is_newline(first.value)) {
    const size_t end = run(next, letter_or_mark);
    if (end > next) return end;
  }
  // ` ?[\p{P}\p{S}]+[\r\n]*`
  const size_t marks = first.value == ' ' ? next : at;
  if (const size_t end = run(marks, punctuation); end > marks) return run(end, newline);
  if (kind != Class::kSpace) return at;
  // `\s*[\r\n]+|\s+(?!\S)|\s+`
  size_t spaces_end = at, after_newline = at, last = at;
  while (spaces_end < region.size()) {
    const CodePoint c = decode_utf8(region, spaces_end);
    if (classes_.of(c.value) != Class::kSpace) break;
    last = spaces_end;
    spaces_end += c.bytes;
    if (is_newline(c.value)) after_newline = spaces_end;
  }
  if (after_newline > at) return after_newline;
  if (spaces_end == region.size() || last == at) return spaces_end;
  return last;  // the last blank goes with the word that follows
}

Status Pretokenizer::match(std::string_view text, size_t base, PieceEnds& ends) const {
  MatchContext context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchSteps);
  pcre2_set_heap_limit(context.get(), kHeapKib);
  PieceEnds pieces{text.size()}, cut;
  for (size_t i = 0; i < expressions_->codes.size(); ++i) {
    const pcre2_code* code = expressions_->codes[i].get();
    MatchData found(pcre2_match_data_create_from_pattern(code, nullptr));
    cut.clear();
    size_t begin = 0;
    for (const size_t end : pieces) {
      const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data() + begin);
      const size_t length = end - begin;
      const auto add = [&](size_t at) {
        if (at > 0 && (cut.empty() || cut.back() < begin + at)) cut.push_back(begin + at);
      };
      size_t from = 0;
      while (from <= length) {
        int count = pcre2_match(code, subject, length, from, PCRE2_NO_UTF_CHECK, found.get(), context.get());
        if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
          count =
              pcre2_match(code, subject, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, found.get(), context.get());
        }
        if (count == PCRE2_ERROR_NOMATCH) break;
        const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(found.get());
        if (count < 0 || ovector[0] > ovector[1] || ovector[0] < from) {
          return {Code::kResourceExhausted,
                  fmt::format("the split expression \"{}\" did not get through the text (PCRE2 error {})",
                              expressions_->sources[i], count),
                  fmt::format("byte {}", base + begin + from), "shorten the text or simplify the expression"};
        }
        add(ovector[0]);
        add(ovector[1]);
        from = ovector[1];
        if (ovector[0] == ovector[1]) {  // an empty match: step over one character
          if (from == length) break;
          from += decode_utf8(text, begin + from).bytes;
        }
      }
      add(length);
      begin = end;
    }
    pieces.swap(cut);
  }
  for (const size_t end : pieces) ends.push_back(base + end);
  return {};
}

}  // namespace nautile
