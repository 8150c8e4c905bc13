#include "text/grammar_cache.h"

namespace nautile {
namespace {

// With its length before it, so that no two lists of fields read the same.
void field(std::string& key, std::string_view text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}

}  // namespace

std::string grammar_key(const GrammarRequest& request) {
  std::string key;
  const TextConstraint& text = request.text;
  field(key, std::to_string(text.kind));
  field(key, text.place);
  field(key, text.lenient ? "lenient" : "");
  field(key, text.kind == TextConstraint::kJsonSchema ? text.schema.dump(-1, ' ', false, Json::error_handler_t::replace)
                                                      : std::string());
  field(key, text.pattern);
  field(key, text.whitespace ? "w" + *text.whitespace : "");
  field(key, std::to_string(text.choices.size()));
  for (const std::string& choice : text.choices) field(key, choice);
  if (!request.tools) return key;
  const ToolConstraint& tools = *request.tools;
  field(key, std::to_string(tools.choice.kind));
  field(key, tools.choice.name);
  field(key, tools.parallel ? "parallel" : "");
  field(key, std::to_string(tools.dsml));
  for (size_t i = 0; i < tools.tools.size(); ++i) {
    field(key, tools.tools[i].name);
    field(key, tools.tools[i].parameters.dump(-1, ' ', false, Json::error_handler_t::replace));
    field(key, i < tools.strict.size() && tools.strict[i] ? "strict" : "");
    field(key, i < tools.places.size() ? tools.places[i] : "");
  }
  return key;
}

Result<std::shared_ptr<const Grammar>> GrammarCache::get(const std::string& scope, const GrammarRequest& request,
                                                         const std::shared_ptr<const TokenTrie>& trie,
                                                         const GrammarLimits& limits) {
  // Before the key is made, which recurses into schemas.
  NAUTILE_RETURN_IF_ERROR(check_grammar_size(request, limits));
  std::string key;
  field(key, scope);
  key += grammar_key(request);
  {
    const std::lock_guard guard(lock_);
    const auto found = by_key_.find(key);
    if (found != by_key_.end() && &found->second->grammar->trie() == trie.get()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return entries_.front().grammar;
    }
  }
  NAUTILE_ASSIGN(std::shared_ptr<const Grammar> grammar, Grammar::compile(request, trie, limits));
  const std::lock_guard guard(lock_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    entries_.erase(found->second);
    by_key_.erase(found);
  }
  entries_.push_front({key, grammar});
  by_key_.emplace(std::move(key), entries_.begin());
  size_t bytes = 0;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    bytes += entry->key.size() * 2 + entry->grammar->bytes();
    if (bytes > max_bytes_ && entry != entries_.begin()) {
      by_key_.erase(entry->key);
      entry = entries_.erase(entry);
    } else {
      ++entry;
    }
  }
  return grammar;
}

size_t GrammarCache::size() const {
  const std::lock_guard guard(lock_);
  return entries_.size();
}

}  // namespace nautile
