// The strict JSON reader and the Python-style writer.
#include "base/json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <unordered_map>
#include <vector>

namespace nautile {
namespace {

// Builds the document while checking it. The library's own builder looks for each key of an ordered object from the
// object's start, which is quadratic in the number of keys; this one appends, and finds duplicates by hash.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(Json& root, const JsonRules& rules) : root_(root), rules_(rules) {}

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(int64_t value) override { return put(value) != nullptr; }
  bool number_unsigned(uint64_t value) override { return put(value) != nullptr; }
  bool number_float(double value, const std::string& digits) override {
    if (digits.find_first_of(".eE") == std::string::npos) {
      problem_ = fmt::format("the integer {} does not fit 64 bits", digits);
      return false;
    }
    return put(value) != nullptr;
  }
  bool string(std::string& value) override { return put(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Open& open = open_.back();
    Members& members = open.value->get_ref<Json::object_t&>();
    size_t at = members.size();
    if (open.places.empty() && at < kScanned) {
      for (at = 0; at < members.size() && members[at].first != name; ++at) {
      }
    } else {
      if (open.places.empty()) {
        for (size_t i = 0; i < members.size(); ++i) open.places.emplace(members[i].first, i);
      }
      at = open.places.emplace(name, members.size()).first->second;
    }
    if (at == members.size()) {
      members.emplace_back(std::move(name), nullptr);
    } else if (!rules_.last_duplicate_wins) {
      problem_ = fmt::format("the key \"{}\" appears twice in one object", name);
      return false;
    }
    open.member = &members[at].second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    position_ = position;
    problem_ = json_fault(error);
    return false;
  }

  std::string problem_;
  std::size_t position_ = 0;
  bool over_limit_ = false;

 private:
  using Members = std::vector<std::pair<const std::string, Json>>;
  static constexpr size_t kScanned = 16;  // objects this small need no table of their keys

  struct Open {
    Json* value;
    Json* member = nullptr;  // of an object: where the next value goes
    std::unordered_map<std::string, size_t> places{};
  };

  Json* put(Json value) {
    if (++values_ > rules_.max_values) {
      over_limit_ = true;
      problem_ = fmt::format("it has more than {} values", rules_.max_values);
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Open& open = open_.back();
    if (open.value->is_object()) {
      *open.member = std::move(value);
      return open.member;
    }
    Json::array_t& items = open.value->get_ref<Json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }

  bool open(Json value) {
    if (static_cast<int>(open_.size()) >= rules_.max_depth) {
      over_limit_ = true;
      problem_ = fmt::format("nested deeper than {} levels", rules_.max_depth);
      return false;
    }
    Json* placed = put(std::move(value));
    if (placed != nullptr) open_.push_back({placed});
    return placed != nullptr;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  const JsonRules& rules_;
  std::vector<Open> open_;
  size_t values_ = 0;
};

const Json* field(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

Status wrong_field(const Json& object, const char* key, const std::string& where, const char* wanted) {
  const Json* value = field(object, key);
  if (value == nullptr)
    return {Code::kInvalidArgument, fmt::format("\"{}\" is missing (it must be {})", key, wanted), where};
  return {Code::kInvalidArgument, fmt::format("\"{}\" must be {}, but is {}", key, wanted, value->type_name()), where};
}

void append_python_string(const std::string& text, std::string& out) {
  out += '"';
  for (unsigned char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (c < 0x20) {
          out += fmt::format("\\u{:04x}", c);
        } else {
          out += static_cast<char>(c);
        }
    }
  }
  out += '"';
}

// repr(float): shortest digits that round-trip; exponent form outside [1e-4, 1e16).
std::string python_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  auto e = text.find('e');
  std::string mantissa = text.substr(0, e);
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16)
    return fmt::format("{}e{}{:02d}", mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  text.assign(buffer, end);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

void append_python(const Json& value, std::string& out) {
  switch (value.type()) {
    case Json::value_t::object: {
      out += '{';
      bool first = true;
      for (auto it = value.begin(); it != value.end(); ++it) {
        if (!first) out += ", ";
        first = false;
        append_python_string(it.key(), out);
        out += ": ";
        append_python(it.value(), out);
      }
      out += '}';
      break;
    }
    case Json::value_t::array: {
      out += '[';
      bool first = true;
      for (const Json& item : value) {
        if (!first) out += ", ";
        first = false;
        append_python(item, out);
      }
      out += ']';
      break;
    }
    case Json::value_t::string:
      append_python_string(value.get_ref<const std::string&>(), out);
      break;
    case Json::value_t::boolean:
      out += value.get<bool>() ? "true" : "false";
      break;
    case Json::value_t::number_integer:
      out += fmt::format("{}", value.get<int64_t>());
      break;
    case Json::value_t::number_unsigned:
      out += fmt::format("{}", value.get<uint64_t>());
      break;
    case Json::value_t::number_float:
      out += python_float(value.get<double>());
      break;
    default:
      out += "null";
  }
}

}  // namespace

std::string json_fault(const nlohmann::detail::exception& error) {
  const std::string text = error.what();
  const size_t cut = text.find("] ");
  return cut == std::string::npos ? text : text.substr(cut + 2);
}

Result<Json> parse_json(std::string_view text, const std::string& where, const JsonRules& rules) {
  Json root;
  StrictBuilder builder(root, rules);
  nlohmann::json_sax<Json>* handler = &builder;
  if (!read_json<Json>(text, handler) || !builder.problem_.empty()) {
    const std::string place = builder.position_ ? fmt::format("{}, byte {}", where, builder.position_) : where;
    return Status(builder.over_limit_ ? Code::kResourceExhausted : Code::kCorrupt,
                  "not valid JSON: " + builder.problem_, place);
  }
  return root;
}

Result<int64_t> json_int(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_number_integer()) return wrong_field(object, key, where, "a whole number");
  if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) {
    return wrong_field(object, key, where, "a whole number below 2^63");
  }
  return value->get<int64_t>();
}

Result<double> json_number(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_number()) return wrong_field(object, key, where, "a number");
  return value->get<double>();
}

Result<bool> json_bool(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_boolean()) return wrong_field(object, key, where, "true or false");
  return value->get<bool>();
}

Result<std::string> json_string(const Json& object, const char* key, const std::string& where) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_string()) return wrong_field(object, key, where, "a string");
  return value->get<std::string>();
}

std::string python_json(const Json& value) {
  std::string out;
  append_python(value, out);
  return out;
}

}  // namespace nautile
