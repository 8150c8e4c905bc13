// API keys: who may ask, and how much.
//
// Keys are kept as SHA-256 digests. A presented key is compared with every configured one in constant time, without an
// early end. Rates are counted per key over sliding minutes.
// Thread-safety: a KeyRing is immutable once read; a Usage belongs to the io thread. Source: spec api.md 3.1, 3.3.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serve/http.h"

namespace nautile::serve {

struct Key {
  std::string name;
  std::array<unsigned char, 32> digest{};
  int max_concurrent = 0;  // 0: no limit, as in the next two
  int requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  bool may_set_priority = false;
  bool admin = false;
};

class KeyRing {
 public:
  // A key, or a comma-separated list of keys.
  void add(std::string_view keys);
  // Lines "[name:]key [max_concurrent=N] [rpm=N] [tpm=N] [priority] [admin]"; # begins a comment.
  // kInvalidArgument naming the line.
  Status add_file(std::string_view text, const std::string& where);

  bool empty() const { return keys_.empty(); }
  // Null if there is none like it.
  const Key* find(std::string_view presented) const;

 private:
  Status add_one(std::string name, std::string_view key, const std::string& where);
  std::vector<Key> keys_;
};

// The key that a request presents: Authorization: Bearer, x-api-key or api-key.
std::string_view presented_key(const http::Request& request);

// What one key has going on.
class Usage {
 public:
  // The seconds to wait before one more request is allowed, 0 if it is allowed now.
  int refuse_s(const Key& key, double now);
  void begin(double now);  // one request; more() adds the choices beyond its first
  void more(double now, int choices);
  void end(double now, int64_t tokens);

 private:
  void forget(double now);
  int running_ = 0;
  std::deque<double> started_;
  std::deque<std::pair<double, int64_t>> spent_;
  int64_t tokens_ = 0;
};

// A loopback address, so that a server may run there without keys.
bool is_loopback(std::string_view host);
// Whether a Host header names this machine's loopback or one of `allowed` (without port, any case).
bool host_allowed(std::string_view host_header, const std::vector<std::string>& allowed);

}  // namespace nautile::serve
