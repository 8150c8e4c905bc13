// Builds the tokenizer from its file and runs the steps of encoding: added tokens, splits, merges.
#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/tokenizer_file.h"

namespace nautile {
namespace {

constexpr size_t kMaxFileBytes = 256u << 20;
constexpr size_t kMaxTextBytes = 1u << 31;
// The search for added tokens costs up to this much per byte of text.
constexpr size_t kMaxAddedBytes = 1024;

// GPT-2's alphabet: each byte as a printable character. Printable Latin-1 stands for itself, the rest follows from
// U+0100.
std::array<uint32_t, 256> byte_alphabet() {
  std::array<uint32_t, 256> letters{};
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    letters[b] = printable ? b : next++;
  }
  return letters;
}

// From the alphabet back to bytes; nothing if a character is not of the alphabet.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    const auto letters = byte_alphabet();
    for (uint32_t b = 0; b < 256; ++b) byte_of_[letters[b]] = static_cast<int16_t>(b);
  }
  std::optional<std::string> bytes(std::string_view text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      if (c.kind != CodePoint::kValid || c.value >= byte_of_.size() || byte_of_[c.value] < 0) return std::nullopt;
      out += static_cast<char>(byte_of_[c.value]);
      at += c.bytes;
    }
    return out;
  }

 private:
  std::vector<int16_t> byte_of_ = std::vector<int16_t>(324, -1);
};

}  // namespace

Result<Tokenizer> Tokenizer::parse(std::string_view json, const std::string& where) {
  NAUTILE_ASSIGN(TokenizerFile file, read_tokenizer_file(json, where));
  auto pretokenizer = Pretokenizer::compile(file.splits);
  if (!pretokenizer.ok()) return pretokenizer.status().at(where);
  Tokenizer made(std::move(pretokenizer).value());
  const auto corrupt = [&](std::string what) { return Status(Code::kCorrupt, std::move(what), where); };

  // Ids must fill 0..n-1. An added token may name an entry of the vocabulary again, with the same text.
  size_t size = file.vocab.size();
  for (const auto& [text, id] : file.vocab) size = std::max<size_t>(size, id + 1);
  for (const auto& token : file.added) size = std::max<size_t>(size, token.id + 1);
  if (size > file.vocab.size() + file.added.size()) {
    return corrupt(
        fmt::format("ids go up to {}, but only {} tokens are listed", size - 1, file.vocab.size() + file.added.size()));
  }
  constexpr uint8_t kInVocabulary = 4;
  made.token_bytes_.resize(size);
  made.flags_.assign(size, 0);
  std::unordered_map<std::string_view, TokenId> ids;
  ids.reserve(file.vocab.size());
  std::vector<std::string_view> vocabulary(size);
  for (const auto& [text, id] : file.vocab) {
    if (made.flags_[id] != 0) return corrupt(fmt::format("the id {} is given twice in model.vocab", id));
    if (!ids.emplace(text, static_cast<TokenId>(id)).second) {
      return corrupt(fmt::format("the token \"{}\" appears twice in model.vocab", text));
    }
    made.flags_[id] = kInVocabulary;
    vocabulary[id] = text;
  }
  for (const auto& token : file.added) {
    if (token.content.empty() || token.content.size() > kMaxAddedBytes) {
      return corrupt(fmt::format("the added token {} is empty or longer than {} bytes", token.id, kMaxAddedBytes));
    }
    uint8_t& flags = made.flags_[token.id];
    if (flags & kAdded) return corrupt(fmt::format("the id {} is given to two added tokens", token.id));
    if ((flags & kInVocabulary) && vocabulary[token.id] != token.content) {
      return corrupt(fmt::format("the id {} is \"{}\" in model.vocab and \"{}\" among the added tokens", token.id,
                                 vocabulary[token.id], token.content));
    }
    const auto id = static_cast<TokenId>(token.id);
    const auto same = ids.find(token.content);
    if ((same != ids.end() && same->second != id) || !made.added_ids_.emplace(token.content, id).second) {
      return corrupt(fmt::format("the added token \"{}\" has two ids", token.content));
    }
    flags |= kAdded | (token.special ? kSpecial : 0);
    made.token_bytes_[id] = token.content;
    made.added_[token.normalized ? 1 : 0].add(token.content, id);
  }
  const ByteAlphabet alphabet;
  std::array<TokenId, 256> bytes;
  bytes.fill(-1);
  for (const auto& [text, id] : file.vocab) {
    if (made.flags_[id] & kAdded) continue;
    auto plain = alphabet.bytes(text);
    if (!plain || plain->empty()) {
      return corrupt(
          fmt::format("the token \"{}\" (id {}) is empty or has a character outside the byte alphabet", text, id));
    }
    if (plain->size() == 1) bytes[static_cast<uint8_t>((*plain)[0])] = static_cast<TokenId>(id);
    made.token_bytes_[id] = std::move(*plain);
  }
  for (size_t id = 0; id < size; ++id) {
    if (made.flags_[id] == 0) return corrupt(fmt::format("no token has the id {}", id));
  }
  for (size_t b = 0; b < 256; ++b) {
    if (bytes[b] < 0) return corrupt(fmt::format("no token stands for the byte {}", b));
  }

  std::vector<Bpe::Merge> merges;
  merges.reserve(file.merges.size());
  std::unordered_map<uint64_t, size_t> ranks;
  ranks.reserve(file.merges.size());
  for (const auto& [left, right] : file.merges) {
    const auto a = ids.find(left), b = ids.find(right), both = ids.find(left + right);
    if (a == ids.end() || b == ids.end() || both == ids.end()) {
      return corrupt(fmt::format("merge {} (\"{}\" \"{}\") uses or makes a token that is not in model.vocab",
                                 merges.size(), left, right));
    }
    const uint64_t pair = static_cast<uint64_t>(a->second) << 32 | static_cast<uint32_t>(b->second);
    if (const auto [first, fresh] = ranks.emplace(pair, merges.size()); !fresh) {
      return corrupt(fmt::format("merge {} repeats merge {}", merges.size(), first->second));
    }
    merges.push_back({a->second, b->second, both->second});
  }
  made.bpe_ = Bpe(bytes, merges);
  return made;
}

Result<Tokenizer> Tokenizer::load(FileSystem& files, const std::string& directory) {
  const std::string path = join_path(directory, "tokenizer.json");
  NAUTILE_ASSIGN(const std::string json, files.read(path, kMaxFileBytes));
  return parse(json, path);
}

// Appends the added tokens in `text`, ascending, with places moved by `base`.
void Tokenizer::find_added(std::string_view text, size_t base, int pass, std::vector<LiteralTrie::Found>& found) const {
  if (pass == 2) return;
  size_t from = 0;
  while (const auto token = added_[pass].find(text, from)) {
    find_added(text.substr(from, token->begin - from), base + from, pass + 1, found);
    found.push_back({base + token->begin, base + token->end, token->id});
    from = token->end;
  }
  find_added(text.substr(from), base + from, pass + 1, found);
}

Status Tokenizer::encode_plain(std::string_view text, Bpe::Scratch& scratch, PieceEnds& ends,
                               std::vector<TokenId>& out) const {
  if (text.empty()) return {};
  ends.clear();
  NAUTILE_RETURN_IF_ERROR(pretokenizer_.split(text, ends));
  size_t begin = 0;
  for (const size_t end : ends) {
    bpe_.encode(text.substr(begin, end - begin), scratch, out);
    begin = end;
  }
  return {};
}

Result<std::vector<TokenId>> Tokenizer::encode(std::span<const Segment> segments) const {
  std::string text;
  std::vector<LiteralTrie::Found> found;
  for (size_t i = 0; i < segments.size(); ++i) {
    const size_t begin = text.size();
    text += segments[i].text;
    if (!segments[i].ids.empty()) {  // the first takes the text's place, the others stand behind it
      found.push_back({begin, text.size(), segments[i].ids[0]});
      for (size_t k = 1; k < segments[i].ids.size(); ++k)
        found.push_back({text.size(), text.size(), segments[i].ids[k]});
      continue;
    }
    if (!segments[i].may_contain_specials) continue;
    for (; i + 1 < segments.size() && segments[i + 1].may_contain_specials && segments[i + 1].ids.empty(); ++i)
      text += segments[i + 1].text;
    const std::string_view part = std::string_view(text).substr(begin);
    find_added(part, begin, 0, found);
  }
  if (text.size() >= kMaxTextBytes) {
    return Status(Code::kResourceExhausted,
                  fmt::format("a text of {} bytes is longer than a prompt can be", text.size()));
  }
  std::vector<TokenId> out;
  Bpe::Scratch scratch;
  PieceEnds ends;
  size_t from = 0;
  for (const auto& token : found) {
    NAUTILE_RETURN_IF_ERROR(encode_plain(std::string_view(text).substr(from, token.begin - from), scratch, ends, out));
    out.push_back(token.id);
    from = token.end;
  }
  NAUTILE_RETURN_IF_ERROR(encode_plain(std::string_view(text).substr(from), scratch, ends, out));
  return out;
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, bool allow_specials) const {
  const Segment one{std::string(text), allow_specials};
  return encode(std::span(&one, 1));
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string out;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!has(ids[i])) {
      return Status(Code::kInvalidArgument, fmt::format("the id {} is not in the vocabulary of {}", ids[i], size()),
                    fmt::format("token {}", i));
    }
    if (!(skip_special && is_special(ids[i]))) out += token_bytes_[ids[i]];
  }
  return out;
}

std::optional<TokenId> Tokenizer::id_of(std::string_view added_text) const {
  const auto found = added_ids_.find(std::string(added_text));
  if (found == added_ids_.end()) return std::nullopt;
  return found->second;
}

Result<std::string> StreamDecoder::push(TokenId id) {
  NAUTILE_ASSIGN(const std::string bytes, tokenizer_.decode(std::span(&id, 1), skip_special_));
  std::string out;
  gate_.push(bytes, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  gate_.finish(out);
  return out;
}

}  // namespace nautile
