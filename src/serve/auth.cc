// Digests, the key file, sliding minutes, host names.
#include "serve/auth.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace nautile::serve {
namespace {

std::array<unsigned char, 32> digest_of(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

bool number(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value > 0;
}

}  // namespace

Status KeyRing::add_one(std::string name, std::string_view key, const std::string& where) {
  if (key.empty()) return {Code::kInvalidArgument, "an API key must not be empty", where};
  Key made;
  made.name = name.empty() ? fmt::format("key{}", keys_.size() + 1) : std::move(name);
  made.digest = digest_of(key);
  keys_.push_back(std::move(made));
  return {};
}

void KeyRing::add(std::string_view keys) {
  while (!keys.empty()) {
    const size_t comma = keys.find(',');
    const std::string_view key = trim(keys.substr(0, comma));
    if (!key.empty()) (void)add_one({}, key, {}).ok();
    keys = comma == std::string_view::npos ? std::string_view() : keys.substr(comma + 1);
  }
}

Status KeyRing::add_file(std::string_view text, const std::string& where) {
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    const std::string place = fmt::format("{}, line {}", where, ++line_number);
    line = trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t space = line.find_first_of(" \t");
    std::string_view key = line.substr(0, space);
    std::string_view rest = space == std::string_view::npos ? std::string_view() : trim(line.substr(space));
    std::string name;
    if (const size_t colon = key.find(':'); colon != std::string_view::npos) {
      name = std::string(key.substr(0, colon));
      key = key.substr(colon + 1);
    }
    NAUTILE_RETURN_IF_ERROR(add_one(std::move(name), key, place));
    Key& made = keys_.back();
    while (!rest.empty()) {
      const size_t gap = rest.find_first_of(" \t");
      const std::string_view word = rest.substr(0, gap);
      rest = gap == std::string_view::npos ? std::string_view() : trim(rest.substr(gap));
      const size_t equals = word.find('=');
      int64_t value = 0;
      const bool counted = equals != std::string_view::npos && number(word.substr(equals + 1), value);
      const std::string_view what = word.substr(0, equals);
      if (word == "priority") {
        made.may_set_priority = true;
      } else if (word == "admin") {
        made.admin = true;
      } else if (counted && what == "max_concurrent") {
        made.max_concurrent = static_cast<int>(std::min<int64_t>(value, 1 << 30));
      } else if (counted && what == "rpm") {
        made.requests_per_minute = static_cast<int>(std::min<int64_t>(value, 1 << 30));
      } else if (counted && what == "tpm") {
        made.tokens_per_minute = value;
      } else {
        return {Code::kInvalidArgument, fmt::format("\"{}\" is no attribute of a key", what), place,
                "use max_concurrent=N, rpm=N, tpm=N, priority or admin"};
      }
    }
  }
  return {};
}

const Key* KeyRing::find(std::string_view presented) const {
  const std::array<unsigned char, 32> digest = digest_of(presented);
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) found = &key;
  }
  return found;
}

std::string_view presented_key(const http::Request& request) {
  const std::string_view authorization = request.header("authorization");
  if (const size_t space = authorization.find(' ');
      space != std::string_view::npos && http::same_name(authorization.substr(0, space), "bearer")) {
    return trim(authorization.substr(space + 1));
  }
  if (const std::string_view key = request.header("x-api-key"); !key.empty()) return trim(key);
  return trim(request.header("api-key"));
}

void Usage::forget(double now) {
  while (!started_.empty() && started_.front() <= now - 60) started_.pop_front();
  while (!spent_.empty() && spent_.front().first <= now - 60) {
    tokens_ -= spent_.front().second;
    spent_.pop_front();
  }
}

int Usage::refuse_s(const Key& key, double now) {
  forget(now);
  const auto wait = [&](double since) { return std::clamp(static_cast<int>(std::ceil(since + 60 - now)), 1, 60); };
  if (key.max_concurrent > 0 && running_ >= key.max_concurrent) return 1;
  if (key.requests_per_minute > 0 && static_cast<int>(started_.size()) >= key.requests_per_minute) {
    return wait(started_.front());
  }
  if (key.tokens_per_minute > 0 && tokens_ >= key.tokens_per_minute) return wait(spent_.front().first);
  return 0;
}

void Usage::begin(double now) {
  ++running_;
  started_.push_back(now);
}

void Usage::more(double now, int choices) {
  for (int i = 0; i < choices; ++i) started_.push_back(now);
}

void Usage::end(double now, int64_t tokens) {
  --running_;
  spent_.push_back({now, tokens});
  tokens_ += tokens;
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

bool host_allowed(std::string_view host, const std::vector<std::string>& allowed) {
  if (host.starts_with('[')) {
    host = host.substr(0, host.find(']') + 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (http::same_name(host, "localhost") || is_loopback(host)) return true;
  return std::any_of(allowed.begin(), allowed.end(),
                     [&](const std::string& name) { return http::same_name(host, name); });
}

}  // namespace nautile::serve
