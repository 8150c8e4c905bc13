// The strict JSON reader and the Python-style writer.
#include "base/json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <unordered_set>
#include <vector>

namespace nautile {
namespace {

// Builds the document through the library's own builder while checking depth and duplicate keys.
class StrictBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  explicit StrictBuilder(Json& root) : Base(root, false) {}

  bool start_object(std::size_t size) {
    keys_.emplace_back();
    return deeper() && Base::start_object(size);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(std::size_t size) { return deeper() && Base::start_array(size); }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) {
      problem_ = fmt::format("the key \"{}\" appears twice in one object", name);
      return false;
    }
    return Base::key(name);
  }
  bool number_float(double value, const std::string& digits) {
    if (digits.find_first_of(".eE") == std::string::npos) {
      problem_ = fmt::format("the integer {} does not fit 64 bits", digits);
      return false;
    }
    return Base::number_float(value, digits);
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    position_ = position;
    problem_ = json_fault(error);
    return false;
  }

  std::string problem_;
  std::size_t position_ = 0;

 private:
  bool deeper() {
    if (++depth_ <= kMaxJsonDepth) return true;
    problem_ = fmt::format("nested deeper than {} levels", kMaxJsonDepth);
    return false;
  }
  std::vector<std::unordered_set<std::string>> keys_;
  int depth_ = 0;
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

Result<Json> parse_json(std::string_view text, const std::string& where) {
  Json root;
  StrictBuilder builder(root);
  if (!read_json<Json>(text, &builder) || !builder.problem_.empty()) {
    const std::string place = builder.position_ ? fmt::format("{}, byte {}", where, builder.position_) : where;
    return Status(Code::kCorrupt, "not valid JSON: " + builder.problem_, place);
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
