// Foreign tokenizer.json files: refused or read, never a crash; and what is read encodes any bytes and gives them back.
// Seeds: tests/fuzz/seeds/tokenizer_json.
#include <cstdlib>

#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nautile;
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = Tokenizer::parse(json, "fuzz");
  if (!tokenizer.ok()) {
    if (tokenizer.status().what().empty()) std::abort();
    return 0;
  }
  const std::string_view text = json.substr(json.size() - std::min<size_t>(json.size(), 256));
  for (const bool specials : {false, true}) {
    const auto ids = tokenizer.value().encode(text, specials);
    if (!ids.ok()) continue;  // an expression of the file that gives up
    const auto back = tokenizer.value().decode(ids.value());
    if (!back.ok() || back.value() != text) std::abort();
  }
  return 0;
}
