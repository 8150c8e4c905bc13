// Compiled grammars by what they were compiled from: the most recently used ones, bounded in bytes.
//
// One owner's requests never learn from another's: `scope` (the client's key) is part of what is looked up. Bytes are
// those of the automata and of what matchers have since made them remember. Thread-safety: any thread. Source: spec
// api.md 10, last rule.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "text/grammar.h"

namespace nautile {

// All that decides what a request compiles to, as text: equal texts, equal grammars. As exact as the request itself.
std::string grammar_key(const GrammarRequest& request);

class GrammarCache {
 public:
  explicit GrammarCache(size_t max_bytes = 256u << 20) : max_bytes_(max_bytes) {}

  // Compiles where it has to, outside the lock; errors are not kept.
  Result<std::shared_ptr<const Grammar>> get(const std::string& scope, const GrammarRequest& request,
                                             const std::shared_ptr<const TokenTrie>& trie,
                                             const GrammarLimits& limits = {});
  size_t size() const;

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const Grammar> grammar;
  };
  const size_t max_bytes_;
  mutable std::mutex lock_;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace nautile
