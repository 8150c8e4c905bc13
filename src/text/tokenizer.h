// Text to token ids and back: the byte-level BPE of DeepSeek-V4, from the model's own tokenizer.json.
//
// encode() adds no token of its own (BOS is part of the prompt's text). Input that is not UTF-8 is encoded byte by byte
// and comes back unchanged; the broken bytes never merge with text beside them.
// Thread-safety: immutable after parse(); every const function may be called from several threads at once.
// Source: spec chat.md sections 1 and 10.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "sys/file.h"
#include "text/bpe.h"
#include "text/literal_trie.h"
#include "text/pretokenizer.h"
#include "text/utf8.h"

namespace nautile {

// A part of a prompt. Only where may_contain_specials is set does the literal text of an added token ("<｜User｜>")
// become that token; elsewhere it stays text, so that nothing a client writes can act as control.
struct Segment {
  std::string text;
  bool may_contain_specials = false;
  std::vector<TokenId> ids{};  // if any: the part is these tokens, and `text` only says what they spell
};

class Tokenizer {
 public:
  // kCorrupt for a broken file, kUnsupported for another kind of tokenizer; both name the field.
  static Result<Tokenizer> parse(std::string_view json, const std::string& where);
  // Reads DIRECTORY/tokenizer.json. Errors also of FileSystem::read().
  static Result<Tokenizer> load(FileSystem& files, const std::string& directory);

  // The segments are one text: neighbours are joined before it is split, only added tokens (where allowed) cut it.
  // kResourceExhausted for more than 2^31 bytes, or when a split expression other than V4's gives up.
  Result<std::vector<TokenId>> encode(std::span<const Segment> segments) const;
  Result<std::vector<TokenId>> encode(std::string_view text, bool allow_specials) const;

  // The bytes of the tokens, joined; kInvalidArgument for an id outside the vocabulary. A single token's bytes need not
  // be whole UTF-8: see StreamDecoder. skip_special leaves out tokens with special=true, which the tags of V4's chat
  // format (<think>, ｜DSML｜, <｜User｜>) are not.
  Result<std::string> decode(std::span<const TokenId> ids, bool skip_special = false) const;

  size_t size() const { return token_bytes_.size(); }
  bool has(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < size(); }
  // Precondition for the three: has(id).
  std::string_view bytes_of(TokenId id) const { return token_bytes_[id]; }
  bool is_added(TokenId id) const { return flags_[id] & kAdded; }
  bool is_special(TokenId id) const { return flags_[id] & kSpecial; }
  // The id of an added token by its literal text.
  std::optional<TokenId> id_of(std::string_view added_text) const;
  bool uses_fast_scanner() const { return pretokenizer_.uses_scanner(); }

 private:
  enum Flag : uint8_t { kAdded = 1, kSpecial = 2 };
  explicit Tokenizer(Pretokenizer pretokenizer) : pretokenizer_(std::move(pretokenizer)) {}
  void find_added(std::string_view text, size_t base, int pass, std::vector<LiteralTrie::Found>& found) const;
  Status encode_plain(std::string_view text, Bpe::Scratch& scratch, PieceEnds& ends, std::vector<TokenId>& out) const;

  Pretokenizer pretokenizer_;
  Bpe bpe_;
  LiteralTrie added_[2];  // looked for one after the other, the second in what the first left
  std::unordered_map<std::string, TokenId> added_ids_;
  std::vector<std::string> token_bytes_;  // [vocabulary]
  std::vector<uint8_t> flags_;            // [vocabulary]
};

// Token ids to text as they come: holds back a code point until it is whole. The joined output equals decoding all ids
// at once with broken bytes replaced by U+FFFD. One thread.
class StreamDecoder {
 public:
  // `tokenizer` must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  // The text that has become whole with this token; kInvalidArgument for an id outside the vocabulary.
  Result<std::string> push(TokenId id);
  // What was held at the end of the stream (U+FFFD or nothing).
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  Utf8Gate gate_;
};

}  // namespace nautile
