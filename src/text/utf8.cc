// UTF-8 decoding after the table of well-formed sequences in the Unicode standard (table 3-7).
#include "text/utf8.h"

namespace nautile {

CodePoint decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, CodePoint::kValid};
  int more;
  uint32_t value;
  uint8_t low = 0x80, high = 0xBF;  // what the second byte may be
  if (lead >= 0xC2 && lead <= 0xDF) {
    more = 1;
    value = lead & 0x1Fu;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    more = 2;
    value = lead & 0x0Fu;
    if (lead == 0xE0) low = 0xA0;   // no overlong forms
    if (lead == 0xED) high = 0x9F;  // no surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    more = 3;
    value = lead & 0x07u;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;  // nothing above U+10FFFF
  } else {
    return {0, 1, CodePoint::kInvalid};
  }
  for (int i = 1; i <= more; ++i) {
    if (at + i >= text.size()) return {0, static_cast<uint8_t>(i), CodePoint::kIncomplete};
    const uint8_t c = byte(i);
    if (c < low || c > high) return {0, static_cast<uint8_t>(i), CodePoint::kInvalid};
    low = 0x80;
    high = 0xBF;
    value = (value << 6) | (c & 0x3Fu);
  }
  return {value, static_cast<uint8_t>(more + 1), CodePoint::kValid};
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const CodePoint c = decode_utf8(text, at);
    if (c.kind != CodePoint::kValid) break;
    at += c.bytes;
  }
  return at;
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t b) { out += static_cast<char>(b); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

void Utf8Gate::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!held_.empty()) {
    joined = std::move(held_);
    held_.clear();
    joined += bytes;
    bytes = joined;
  }
  while (!bytes.empty()) {
    const size_t good = valid_utf8_prefix(bytes);
    out += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    const CodePoint c = decode_utf8(bytes, 0);
    if (c.kind == CodePoint::kIncomplete) {
      held_ = bytes;
      break;
    }
    out += "\xEF\xBF\xBD";
    bytes.remove_prefix(c.bytes);
  }
}

void Utf8Gate::finish(std::string& out) {
  if (!held_.empty()) out += "\xEF\xBF\xBD";
  held_.clear();
}

}  // namespace nautile
