// A Hugging Face tokenizer.json, read and checked for being what Nautile runs: a byte-level BPE behind regex splits.
//
// Whatever the file asks for that would change ids and is not in this shape (another model, a normaliser, a dropout, a
// post-processor that adds tokens, ...) is kUnsupported, naming the field; broken files are kCorrupt.
// Thread-safety: a pure function. Source: spec chat.md 1.1, 1.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace nautile {

struct TokenizerFile {
  struct AddedToken {
    int64_t id;
    std::string content;
    bool special;
    bool normalized;  // looked for only after those that are not (there is no normaliser; the order is all it means)
  };
  std::vector<std::pair<std::string, int64_t>> vocab;       // in file order, texts in the byte alphabet of GPT-2
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::vector<AddedToken> added;
  std::vector<std::string> splits;  // regular expressions, each match and each gap isolated
};

// `where` names the file in errors. Vocabulary and merges are not held against each other yet: Tokenizer does that.
Result<TokenizerFile> read_tokenizer_file(std::string_view json, const std::string& where);

}  // namespace nautile
