// Any bytes as a schema, a regular expression, a GBNF grammar, choices or a tool's parameters; then a walk steered by the rest of the
// input: bounded work, never a dead end, and what a mask allows is accepted.
#include <cstdlib>

#include "text/grammar.h"

namespace {

using namespace nautile;

std::shared_ptr<const TokenTrie> vocabulary() {
  static const auto trie = [] {
    std::vector<std::string> bytes;
    for (int byte = 0; byte < 256; ++byte) bytes.push_back(std::string(1, static_cast<char>(byte)));
    bytes.resize(258);
    for (const char* text : {"{\"", "\":", "\",\"", "\"}", "[[", "]]", "true", "12", "\xc3\xa9", "ab", "\n\n<", "</"}) {
      bytes.push_back(text);
    }
    const TokenId end[] = {256};
    return std::make_shared<const TokenTrie>(TokenTrie::build(bytes, end));
  }();
  return trie;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const size_t steps = data[1] % 64;
  const std::string_view text(reinterpret_cast<const char*>(data + 2), size - 2);
  GrammarRequest request;
  request.text.lenient = data[0] & 8;
  if (data[0] & 16) request.text.whitespace = "[ \n]{0,2}";
  switch (data[0] & 3) {
    case 0:
      request.text.kind = data[0] & 32 ? TextConstraint::kGbnf : TextConstraint::kRegex;
      request.text.pattern = text;
      break;
    case 1:
      request.text.kind = TextConstraint::kChoice;
      for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        request.text.choices.push_back(std::string(text.substr(at, end - at)));
        at = end + 1;
      }
      break;
    default: {
      auto schema = parse_json(text, "fuzz");
      if (!schema.ok()) return 0;
      if ((data[0] & 3) == 2) {
        request.text.kind = TextConstraint::kJsonSchema;
        request.text.schema = *schema;
      } else {
        request.tools.emplace();
        request.tools->dsml = 257;
        request.tools->tools.push_back({"f", "", *schema});
        request.tools->choice.kind = data[0] & 4 ? ToolChoice::kRequired : ToolChoice::kAuto;
      }
    }
  }
  GrammarLimits limits;
  limits.states = 20'000;
  limits.cache_bytes = 8 << 20;
  limits.walk_steps = 200'000;
  auto grammar = Grammar::compile(request, vocabulary(), limits);
  if (!grammar.ok()) {
    if (grammar.status().what().empty()) std::abort();
    return 0;
  }
  GrammarMatcher matcher(*grammar);
  std::vector<uint32_t> mask(vocabulary()->mask_words());
  for (size_t step = 0; step < steps; ++step) {
    matcher.fill_mask(mask);
    if (matcher.can_end() != (mask[8] & 1)) std::abort();
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < static_cast<TokenId>(vocabulary()->vocabulary()); ++id) {
      if (mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) ids.push_back(id);
    }
    if (ids.empty()) std::abort();
    GrammarMatcher copy(matcher);
    if (!copy.accept(ids[(step * 31 + data[step % size]) % ids.size()])) std::abort();
    matcher = copy;
    if (matcher.finished()) matcher.reset();
  }
  return 0;
}
