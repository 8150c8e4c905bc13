// Reading the keywords of JSON schemas: references, merging what must hold together, forking at alternatives.
#include <algorithm>

#include "text/grammar_schema.h"
#include "text/utf8.h"

namespace nautile::grammar {
namespace {

constexpr int kMaxReferences = 64;  // schemas that lead to each other in one place

bool one_of(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string pointer_token(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::optional<uint64_t> count_of(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer() && value.get<int64_t>() >= 0) return static_cast<uint64_t>(value.get<int64_t>());
  if (value.is_number_float()) {  // 3.0 is an integer too
    const double number = value.get<double>();
    if (number >= 0 && number < 1e15 && number == static_cast<double>(static_cast<uint64_t>(number))) {
      return static_cast<uint64_t>(number);
    }
  }
  return std::nullopt;
}

bool less(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative;
  const bool smaller = a.whole.size() != b.whole.size() ? a.whole.size() < b.whole.size()
                       : a.whole != b.whole             ? a.whole < b.whole
                                                        : a.fraction < b.fraction;
  const bool equal = a.whole == b.whole && a.fraction == b.fraction;
  return a.negative ? !smaller && !equal : smaller;
}

}  // namespace

bool is_annotation(std::string_view key) {
  return one_of(key, {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
                      "$schema", "$comment", "$defs", "definitions", "contentEncoding", "contentMediaType",
                      "contentSchema", "discriminator"}) ||
         key.starts_with("x-");
}

SchemaCompiler::SchemaCompiler(Builder& builder, JsonPieces& pieces, const GrammarLimits& limits, const Json& schema,
                               std::string path, bool lenient)
    : builder_(builder), pieces_(pieces), limits_(limits), root_(schema), path_(std::move(path)), lenient_(lenient) {}

const Json* SchemaCompiler::child(const Json* parent, std::string segment, const Json* node) {
  places_.try_emplace(node, parent, std::move(segment));
  return node;
}

std::string SchemaCompiler::path(const Json* node) const {
  std::vector<std::string> way;
  while (node != &root_) {
    const auto place = places_.find(node);
    if (place == places_.end() || way.size() > 256) break;
    way.push_back(place->second.second);
    node = place->second.first;
  }
  std::string out = path_;
  for (; !way.empty(); way.pop_back()) out += (out.empty() ? "" : ".") + way.back();
  return out;
}

Status SchemaCompiler::error(const Json* node, const std::string& keyword, std::string what) const {
  const std::string at = path(node);
  return Status(Code::kInvalidArgument, std::move(what),
                at.empty() || keyword.empty() ? at + keyword : at + "." + keyword);
}

Status SchemaCompiler::too_complex(const Json* node, std::string what) const {
  return error(node, "", "schema_too_complex: " + what);
}

// Follows a schema that is nothing but a reference.
Result<const Json*> SchemaCompiler::resolve(const Json* node) {
  for (int hops = 0;; ++hops) {
    if (!node->is_object() || !node->contains("$ref")) return node;
    for (const auto& item : node->items()) {
      if (item.key() != "$ref" && !is_annotation(item.key())) return node;
    }
    if (hops == kMaxReferences) return error(node, "$ref", "invalid_schema: references lead to each other without end");
    const Json& reference = node->at("$ref");
    if (!reference.is_string()) return error(node, "$ref", "invalid_schema: must be a string");
    const std::string& text = reference.get_ref<const std::string&>();
    if (!text.starts_with("#")) {
      return error(node, "$ref", "invalid_schema: only references within the schema are followed");
    }
    const Json* at = &root_;
    size_t begin = 1;
    if (text.size() > 1 && text[1] != '/') {
      return error(node, "$ref", "invalid_schema: only \"#\" and \"#/...\" are followed");
    }
    while (begin < text.size()) {
      const size_t end = std::min(text.find('/', begin + 1), text.size());
      std::string token;
      for (size_t i = begin + 1; i < end; ++i) {
        if (text[i] == '~' && i + 1 < end && (text[i + 1] == '0' || text[i + 1] == '1')) {
          token += text[++i] == '0' ? '~' : '/';
        } else if (text[i] == '%' && i + 2 < end) {
          const auto hex = [](char c) {
            return c >= '0' && c <= '9'   ? c - '0'
                   : c >= 'a' && c <= 'f' ? c - 'a' + 10
                   : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                          : -1;
          };
          if (hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0) {
            return error(node, "$ref", "invalid_schema: a broken percent escape");
          }
          token += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
          i += 2;
        } else {
          token += text[i];
        }
      }
      const Json* next = nullptr;
      if (at->is_object()) {
        const auto found = at->find(token);
        if (found != at->end()) next = &*found;
      } else if (at->is_array() && !token.empty() && token.size() < 9 &&
                 token.find_first_not_of("0123456789") == std::string::npos) {
        const size_t index = std::stoul(token);
        if (index < at->size()) next = &(*at)[index];
      }
      if (!next) return error(node, "$ref", "invalid_schema: there is no \"" + text + "\"");
      at = child(at, pointer_token(token), next);
      begin = end;
    }
    node = at;
  }
}

Result<std::vector<FlatSchema>> SchemaCompiler::flatten(const FlatSchema::Nodes& nodes) {
  std::vector<FlatSchema> out;
  std::vector<Open> work(1);
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) work[0].pending.push_back({*node, Pending::kWhole, 0});
  work[0].flat.at = nodes[0];
  while (!work.empty()) {
    Open open = std::move(work.back());
    work.pop_back();
    bool forked = false;
    while (!open.pending.empty() && !forked && (open.flat.types != 0 || !open.flat.typed)) {
      const Pending next = open.pending.back();
      open.pending.pop_back();
      if (!spend(1 + next.node->size())) return too_complex(next.node, "too many schemas in one place");
      if (next.depth > kMaxReferences) {
        return error(next.node, "",
                     "invalid_schema: it refers to itself, or through too many others, with nothing in between");
      }
      if (next.part == Pending::kWhole) {
        NAUTILE_RETURN_IF_ERROR(keywords(next.node, next.depth, open));
        continue;
      }
      const char* key = next.part == Pending::kAnyOf ? "anyOf" : "oneOf";
      const Json& list = next.node->at(key);
      if (!list.is_array() || list.empty()) return error(next.node, key, "invalid_schema: must be a list of schemas");
      if (work.size() + out.size() + list.size() > limits_.alternatives) {
        return too_complex(next.node, "too many alternatives");
      }
      const size_t copied = open.pending.size() + open.flat.members.size() + open.flat.required.size() +
                            open.flat.elements.size() + (open.flat.values ? open.flat.values->size() : 0);
      if (!spend(list.size() * (1 + copied))) return too_complex(next.node, "too many alternatives");
      child(next.node, key, &list);
      for (size_t i = list.size(); i-- > 0;) {
        Open fork = open;
        fork.pending.push_back({child(&list, std::to_string(i), &list[i]), Pending::kWhole, next.depth + 1});
        work.push_back(std::move(fork));
      }
      forked = true;
    }
    if (forked) continue;
    if (open.flat.typed && open.flat.types == 0) continue;  // nothing satisfies all of them
    out.push_back(std::move(open.flat));
  }
  return out;
}

Status SchemaCompiler::keywords(const Json* node, int depth, Open& open) {
  FlatSchema& flat = open.flat;
  if (node->is_boolean()) {
    if (!node->get<bool>()) {
      flat.types = 0;
      flat.typed = true;
    }
    return {};
  }
  if (!node->is_object()) return error(node, "", "invalid_schema: a schema is an object or a boolean");
  for (const auto& item : node->items()) {
    const std::string& key = item.key();
    if (is_annotation(key) || (key == "$id" && node == &root_) || key == "$ref" || key == "allOf") continue;
    if (key == "anyOf" || key == "oneOf") {
      open.pending.push_back({node, key == "anyOf" ? Pending::kAnyOf : Pending::kOneOf, depth});
      continue;
    }
    NAUTILE_RETURN_IF_ERROR(keyword(node, key, item.value(), open));
  }
  if (const auto all = node->find("allOf"); all != node->end()) {
    if (!all->is_array() || all->empty()) return error(node, "allOf", "invalid_schema: must be a list of schemas");
    child(node, "allOf", &*all);
    for (size_t i = all->size(); i-- > 0;) {
      open.pending.push_back({child(&*all, std::to_string(i), &(*all)[i]), Pending::kWhole, depth + 1});
    }
  }
  if (const auto reference = node->find("$ref"); reference != node->end()) {
    const Json alone = {{"$ref", *reference}};
    auto target = resolve(&alone);
    if (!target.ok()) return error(node, "$ref", target.status().what());
    open.pending.push_back({*target, Pending::kWhole, depth + 1});
  }
  return {};
}

Status SchemaCompiler::keyword(const Json* node, const std::string& key, const Json& value, Open& open) {
  FlatSchema& flat = open.flat;
  if (value.is_structured() && !spend(value.size())) return too_complex(node, "too many schemas in one place");
  if (key == "type") return type_keyword(node, value, flat);
  if (key == "enum" || key == "const") return values_keyword(node, key, value, flat);
  if (one_of(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
    return bound_keyword(node, key, value, flat);
  }
  if (one_of(key, {"pattern", "format", "minLength", "maxLength"})) return text_keyword(node, key, value, flat);
  if (one_of(key, {"properties", "additionalProperties", "required"})) return members_keyword(node, key, value, flat);
  if (key == "minItems" || key == "maxItems") {
    const auto count = count_of(value);
    if (!count) return error(node, key, "invalid_schema: must be a whole number from 0");
    flat.implied |= kArray;
    if (key == "minItems") {
      flat.min_items = std::max(flat.min_items, *count);
    } else {
      flat.max_items = std::min(flat.max_items, *count);
    }
    return {};
  }
  if (key == "items" || key == "prefixItems") {
    flat.implied |= kArray;
    if (key == "items" && (value.is_object() || value.is_boolean())) {
      child(node, key, &value);
      if (!node->contains("prefixItems")) flat.elements.push_back({nullptr, &value});
      return {};
    }
    if (key == "prefixItems" && value.is_array() && !value.empty()) {
      child(node, key, &value);
      for (size_t i = 0; i < value.size(); ++i) child(&value, std::to_string(i), &value[i]);
      flat.elements.push_back({&value, node->contains("items") ? &node->at("items") : nullptr});
      return {};
    }
    return error(node, key,
                 key == "items" ? "invalid_schema: must be a schema" : "invalid_schema: must be a list of schemas");
  }
  // These say nothing in this form.
  if (one_of(key, {"minProperties", "minContains"}) && value == Json(0)) return {};
  if (key == "uniqueItems" && value == Json(false)) return {};
  if (lenient_) {
    const std::string at = path(node);
    ignored_.push_back(at.empty() ? key : at + "." + key);
    return {};
  }
  return error(node, key, "invalid_schema: this keyword is not supported");
}

Status SchemaCompiler::type_keyword(const Json* node, const Json& value, FlatSchema& flat) {
  unsigned types = 0;
  const auto one = [&](const Json& name) {
    if (!name.is_string()) return false;
    static constexpr std::pair<std::string_view, unsigned> kNames[] = {
        {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kNumber},
        {"string", kString}, {"array", kArray},     {"object", kObject}};
    for (const auto& [known, type] : kNames) {
      if (name.get_ref<const std::string&>() == known) {
        types |= type;
        return true;
      }
    }
    return false;
  };
  bool good = value.is_array() ? !value.empty() : one(value);
  if (value.is_array()) {
    for (const Json& name : value) good = good && one(name);
  }
  if (!good) return error(node, "type", "invalid_schema: no such type");
  flat.types &= types;
  flat.typed = true;
  return {};
}

Status SchemaCompiler::values_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat) {
  std::vector<const Json*> values;
  if (key == "const") {
    values.push_back(&value);
  } else {
    if (!value.is_array()) return error(node, key, "invalid_schema: must be a list");
    if (value.size() > limits_.enum_values) {
      return error(node, key, "schema_too_complex: more than " + std::to_string(limits_.enum_values) + " values");
    }
    for (const Json& one : value) values.push_back(&one);
  }
  if (!flat.values) {
    flat.values = std::move(values);
    return {};
  }
  // Both lists: by text, since a pair by pair comparison of long lists takes too long.
  std::vector<std::string> texts;
  for (const Json* one : values) texts.push_back(one->dump(-1, ' ', false, Json::error_handler_t::replace));
  std::sort(texts.begin(), texts.end());
  std::erase_if(*flat.values, [&](const Json* one) {
    return !std::binary_search(texts.begin(), texts.end(), one->dump(-1, ' ', false, Json::error_handler_t::replace));
  });
  return {};
}

Status SchemaCompiler::bound_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat) {
  if (!value.is_number()) return error(node, key, "invalid_schema: must be a number");
  flat.implied |= kNumber;
  const bool low = key == "minimum" || key == "exclusiveMinimum";
  const auto decimal = decimal_of(value);
  if (!decimal) {
    // Beyond every number that is written anyway?
    const double number = value.get<double>();
    if (std::abs(number) >= 1e18 && (number < 0) == low) return {};
    if (std::abs(number) < 1e18 && !lenient_) {
      return error(node, key, "invalid_schema: a bound with more than 18 digits behind the point is not supported");
    }
    return error(node, key, "invalid_schema: numbers beyond 10^18 are not supported");
  }
  const NumberBounds::Bound bound{*decimal, key.starts_with("exclusive")};
  std::optional<NumberBounds::Bound>& held = low ? flat.bounds.low : flat.bounds.high;
  const bool tighter = !held || (low ? less(held->value, bound.value) : less(bound.value, held->value)) ||
                       (bound.exclusive && !less(held->value, bound.value) && !less(bound.value, held->value));
  if (tighter) held = bound;
  return {};
}

Status SchemaCompiler::text_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat) {
  flat.implied |= kString;
  if (key == "minLength" || key == "maxLength") {
    const auto count = count_of(value);
    if (!count) return error(node, key, "invalid_schema: must be a whole number from 0");
    if (key == "minLength") {
      flat.length.min = std::max(flat.length.min, *count);
    } else {
      flat.length.max = std::min(flat.length.max, *count);
    }
    return {};
  }
  if (!value.is_string()) return error(node, key, "invalid_schema: must be a string");
  const std::string& text = value.get_ref<const std::string&>();
  const char* known = key == "format" ? format_expression(text) : nullptr;
  if (key == "format" && !known) {
    if (!lenient_) return error(node, key, "invalid_schema: format \"" + text + "\" is not supported");
    ignored_.push_back(path(node) + ".format");
    return {};
  }
  std::shared_ptr<const Pattern>& cached = pattern_cache_[key + ' ' + text];
  if (!cached) {
    // All expressions of a schema share the states that one may have.
    GrammarLimits left = limits_;
    left.states -= std::min(left.states, pattern_states_);
    auto pattern = Pattern::parse(known ? std::string_view(known) : text, known != nullptr, left);
    if (!pattern.ok()) return error(node, key, pattern.status().what() + " (" + pattern.status().where() + ")");
    pattern_states_ += pattern.value().states();
    cached = std::make_shared<const Pattern>(std::move(*pattern));
  }
  if (std::find(flat.patterns.begin(), flat.patterns.end(), cached) != flat.patterns.end()) return {};
  if (flat.patterns.size() == 4) return error(node, key, "schema_too_complex: more than four patterns for one string");
  flat.patterns.push_back(cached);
  return {};
}

Status SchemaCompiler::members_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat) {
  flat.implied |= kObject;
  if (key == "required") {
    if (!value.is_array()) return error(node, key, "invalid_schema: must be a list of names");
    for (const Json& name : value) {
      if (!name.is_string()) return error(node, key, "invalid_schema: must be a list of names");
      flat.required.push_back(name.get<std::string>());
    }
    return {};
  }
  if (key == "additionalProperties") {
    if (!value.is_object() && !value.is_boolean()) return error(node, key, "invalid_schema: must be a schema");
    child(node, key, &value);
    if (!node->contains("properties")) flat.members.push_back({nullptr, &value});
    return {};
  }
  if (!value.is_object()) return error(node, key, "invalid_schema: must be an object of schemas");
  child(node, key, &value);
  for (const auto& item : value.items()) {
    if (!item.value().is_object() && !item.value().is_boolean()) {
      return error(&value, item.key(), "invalid_schema: a schema is an object or a boolean");
    }
    child(&value, item.key(), &item.value());
  }
  const auto additional = node->find("additionalProperties");
  flat.members.push_back({&value, additional == node->end() ? nullptr : &*additional});
  return {};
}

const char* format_expression(std::string_view format) {
#define NAUTILE_YEAR "(000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})"
#define NAUTILE_LEAP "(\\d\\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define NAUTILE_DATE                                                                                   \
  "(" NAUTILE_YEAR                                                                                     \
  "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))" \
  "|" NAUTILE_LEAP "-02-29)"
#define NAUTILE_TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define NAUTILE_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define NAUTILE_HOST NAUTILE_LABEL "(\\." NAUTILE_LABEL "){0,6}"
#define NAUTILE_OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define NAUTILE_H "[0-9A-Fa-f]{1,4}"
  static constexpr std::pair<std::string_view, const char*> kFormats[] = {
      {"date", NAUTILE_DATE},
      {"time", NAUTILE_TIME},
      {"date-time", NAUTILE_DATE "T" NAUTILE_TIME},
      {"email", "[A-Za-z0-9_%+-]{1,32}(\\.[A-Za-z0-9_%+-]{1,16}){0,2}@" NAUTILE_LABEL "(\\." NAUTILE_LABEL
                "){0,3}\\.[A-Za-z]{2,10}"},
      {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
      {"ipv4", "(" NAUTILE_OCTET "\\.){3}" NAUTILE_OCTET},
      {"ipv6", "(" NAUTILE_H ":){7}" NAUTILE_H "|::(" NAUTILE_H "(:" NAUTILE_H "){0,5})?|(" NAUTILE_H
               ":){1}(:" NAUTILE_H "){1,6}|(" NAUTILE_H ":){2}(:" NAUTILE_H "){1,5}|(" NAUTILE_H ":){3}(:" NAUTILE_H
               "){1,4}|(" NAUTILE_H ":){4}(:" NAUTILE_H "){1,3}|(" NAUTILE_H ":){5}(:" NAUTILE_H "){1,2}|(" NAUTILE_H
               ":){6}:" NAUTILE_H "|(" NAUTILE_H ":){1,7}:"},
      {"hostname", NAUTILE_HOST},
      {"uri",
       "[A-Za-z][A-Za-z0-9+-]{0,15}://" NAUTILE_HOST "(:[1-9]\\d{0,3})?"
       "(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*(\\?([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
       "(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"},
  };
#undef NAUTILE_YEAR
#undef NAUTILE_LEAP
#undef NAUTILE_DATE
#undef NAUTILE_TIME
#undef NAUTILE_LABEL
#undef NAUTILE_HOST
#undef NAUTILE_OCTET
#undef NAUTILE_H
  for (const auto& [name, expression] : kFormats) {
    if (name == format) return expression;
  }
  return nullptr;
}

}  // namespace nautile::grammar
