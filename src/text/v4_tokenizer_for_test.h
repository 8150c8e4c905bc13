// The published V4 tokenizer, read once for a test program.
#pragma once

#include <doctest/doctest.h>

#include "text/tokenizer.h"

namespace nautile {

inline const Tokenizer& v4_tokenizer() {
  static const Tokenizer tokenizer = [] {
    auto json = real_files()->read(NAUTILE_V4_TOKENIZER, 64 << 20);
    REQUIRE_MESSAGE(json.ok(), json.status().message());
    auto made = Tokenizer::parse(*json, "v4_tokenizer.json");
    REQUIRE_MESSAGE(made.ok(), made.status().message());
    return std::move(made).value();
  }();
  return tokenizer;
}

}  // namespace nautile
