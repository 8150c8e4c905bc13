// Typed access to a request's fields.
#include "serve/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace nautile::serve {
namespace {

constexpr size_t kMaxValues = 1000000;

int hex4(std::string_view text, size_t at) {
  int value = 0;
  for (size_t i = at; i < at + 4; ++i) {
    if (i >= text.size()) return -1;
    const char c = text[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// Half of a pair of surrogates, as a JavaScript client leaves it when it cuts a string inside an emoji.
void repair_surrogates(std::string& body) {
  if (body.find("\\u") == std::string::npos) return;
  for (size_t at = 0; at + 1 < body.size();) {
    if (body[at] != '\\') {
      ++at;
      continue;
    }
    if (body[at + 1] != 'u') {
      at += 2;
      continue;
    }
    const int unit = hex4(body, at + 2);
    if (unit >= 0xD800 && unit <= 0xDBFF && at + 11 < body.size() && body[at + 6] == '\\' && body[at + 7] == 'u') {
      const int second = hex4(body, at + 8);
      if (second >= 0xDC00 && second <= 0xDFFF) {
        at += 12;
        continue;
      }
    }
    if (unit >= 0xD800 && unit <= 0xDFFF) body.replace(at, 6, "\\ufffd");
    at += 6;
  }
}

}  // namespace

std::optional<int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto n = value.get<uint64_t>();
    if (n > INT64_MAX) return std::nullopt;
    return static_cast<int64_t>(n);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double x = value.get<double>();
  if (x != std::floor(x) || std::abs(x) >= 9007199254740992.0) return std::nullopt;
  return static_cast<int64_t>(x);
}

Outcome<Json> parse_body(std::string& body, int max_depth) {
  repair_surrogates(body);
  JsonRules rules;
  rules.max_depth = max_depth;
  rules.max_values = kMaxValues;
  rules.last_duplicate_wins = true;
  auto parsed = parse_json(body, "the body", rules);
  if (!parsed.ok()) {
    const Status status = parsed.status();
    const bool deep = status.what().find("nested deeper") != std::string::npos;
    return bad_request(deep ? "json_too_deep" : "invalid_json",
                       fmt::format("The body is {} ({}).", status.what(), status.where()));
  }
  if (!parsed->is_object()) {
    return bad_request("invalid_json", fmt::format("The body must be a JSON object, but is {}.", parsed->type_name()));
  }
  return std::move(parsed).value();
}

Fields::Fields(const Json& object, std::string path, FieldNotes& notes)
    : object_(object), path_(std::move(path)), notes_(notes) {}

std::string Fields::path_of(const char* name) const {
  return path_.empty() ? name : path_ + "." + name;
}

void Fields::fail(const char* name, std::string code, std::string message) {
  notes_.fail(bad_request(std::move(code), fmt::format("{} {}.", path_of(name), message), path_of(name)));
}

void Fields::wrong(const char* name, const std::string& wanted) {
  const auto found = object_.find(name);
  const std::string is = found == object_.end() ? "absent" : found->type_name();
  fail(name, "invalid_type", fmt::format("must be {}, but is {}", wanted, is));
}

const Json* Fields::get(const char* name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool Fields::integer(const char* name, int64_t& out, int64_t low, int64_t high) {
  const Json* value = get(name);
  if (value == nullptr) return false;
  const auto n = whole_number(*value);
  if (!n) {
    wrong(name, "a whole number");
    return false;
  }
  if (*n < low || *n > high) {
    fail(name, "invalid_value",
         high == INT64_MAX ? fmt::format("must be at least {}, but is {}", low, *n)
                           : fmt::format("must be between {} and {}, but is {}", low, high, *n));
    return false;
  }
  out = *n;
  return true;
}

bool Fields::number(const char* name, double& out, double low, double high, bool low_open) {
  const Json* value = get(name);
  if (value == nullptr) return false;
  if (!value->is_number()) {
    wrong(name, "a number");
    return false;
  }
  const double x = value->get<double>();
  if (!(x >= low && x <= high) || (low_open && x == low)) {
    fail(name, "invalid_value", fmt::format("must be between {} and {}, but is {}", low, high, x));
    return false;
  }
  out = x;
  return true;
}

bool Fields::boolean(const char* name, bool& out) {
  const Json* value = get(name);
  if (value == nullptr) return false;
  if (!value->is_boolean()) {
    wrong(name, "true or false");
    return false;
  }
  out = value->get<bool>();
  return true;
}

bool Fields::text(const char* name, std::string& out, size_t max_bytes) {
  const Json* value = get(name);
  if (value == nullptr) return false;
  if (!value->is_string()) {
    wrong(name, "a string");
    return false;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    fail(name, "invalid_value", fmt::format("must not be longer than {} bytes", max_bytes));
    return false;
  }
  out = text;
  return true;
}

bool Fields::texts(const char* name, std::vector<std::string>& out, size_t max_count, size_t max_bytes) {
  const Json* value = get(name);
  if (value == nullptr) return false;
  std::vector<std::string> read;
  if (value->is_string()) {
    read.push_back(value->get<std::string>());
  } else if (value->is_array()) {
    for (const Json& item : *value) {
      if (!item.is_string()) {
        wrong(name, "a string or an array of strings");
        return false;
      }
      read.push_back(item.get<std::string>());
    }
  } else {
    wrong(name, "a string or an array of strings");
    return false;
  }
  if (read.size() > max_count) {
    fail(name, "invalid_value", fmt::format("must not have more than {} strings", max_count));
    return false;
  }
  for (const std::string& item : read) {
    if (item.empty() || item.size() > max_bytes) {
      fail(name, "invalid_value", fmt::format("must hold strings of 1 to {} bytes", max_bytes));
      return false;
    }
  }
  out = std::move(read);
  return true;
}

bool Fields::ids(const char* name, std::vector<int32_t>& out, size_t max_count, size_t vocabulary) {
  const Json* value = array(name);
  if (value == nullptr) return false;
  if (value->size() > max_count) {
    fail(name, "invalid_value", fmt::format("must not have more than {} ids", max_count));
    return false;
  }
  std::vector<int32_t> read;
  for (const Json& item : *value) {
    const auto id = whole_number(item);
    if (!id) {
      wrong(name, "an array of whole numbers");
      return false;
    }
    if (*id < 0 || static_cast<uint64_t>(*id) >= vocabulary) {
      fail(name, "token_id_out_of_range",
           fmt::format("holds {}, which is out of vocabulary (ids 0 to {})", *id, vocabulary - 1));
      return false;
    }
    read.push_back(static_cast<int32_t>(*id));
  }
  out = std::move(read);
  return true;
}

const Json* Fields::object(const char* name) {
  const Json* value = get(name);
  if (value != nullptr && !value->is_object()) {
    wrong(name, "an object");
    return nullptr;
  }
  return value;
}

const Json* Fields::array(const char* name) {
  const Json* value = get(name);
  if (value != nullptr && !value->is_array()) {
    wrong(name, "an array");
    return nullptr;
  }
  return value;
}

void Fields::accept(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

void Fields::refuse(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const Json* value = get(name);
    if (value != nullptr && *value != false) fail(name, "unsupported_parameter", "is not supported");
  }
}

void Fields::finish() {
  for (auto it = object_.begin(); it != object_.end(); ++it) {
    if (!known_.contains(it.key())) notes_.ignored.push_back(path_of(it.key().c_str()));
  }
}

}  // namespace nautile::serve
