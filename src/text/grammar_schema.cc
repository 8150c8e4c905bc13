// Rules from schemas. Reading the keywords of a schema is in grammar_keywords.cc.
#include "text/grammar_schema.h"

#include <algorithm>
#include <unordered_set>

namespace nautile::grammar {
namespace {

unsigned type_of(const Json& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_number_integer()) return kInteger;
  if (value.is_number()) {
    const double number = value.get<double>();
    return number == static_cast<double>(static_cast<int64_t>(std::clamp(number, -9e18, 9e18))) ? kInteger : kFraction;
  }
  if (value.is_string()) return kString;
  return value.is_array() ? kArray : kObject;
}

const Json& anything() {
  static const Json schema = true;
  return schema;
}

// -1, 0, 1 of magnitudes and signs.
int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int order = 0;
  if (a.whole.size() != b.whole.size()) {
    order = a.whole.size() < b.whole.size() ? -1 : 1;
  } else {
    order = a.whole.compare(b.whole);
    if (order == 0) order = a.fraction.compare(b.fraction);
  }
  order = order < 0 ? -1 : order > 0 ? 1 : 0;
  return a.negative ? -order : order;
}

size_t code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::vector<FlatSchema::Property> FlatSchema::properties() const {
  std::vector<Property> out;
  std::unordered_map<std::string, size_t> index;
  for (const Members& part : members) {
    if (!part.properties) continue;
    for (const auto& item : part.properties->items()) {
      if (index.try_emplace(item.key(), out.size()).second) out.push_back({item.key(), {}, false});
    }
  }
  for (const std::string& name : required) {
    if (index.try_emplace(name, out.size()).second) out.push_back({name, {}, false});
    out[index[name]].required = true;
  }
  // Each part says something of each property: by name, or as one of its additional ones.
  std::vector<uint32_t> by_name(out.size(), 0);
  uint32_t stamp = 0;
  for (const Members& part : members) {
    ++stamp;
    if (part.properties) {
      for (const auto& item : part.properties->items()) {
        const size_t at = index[item.key()];
        out[at].value.push_back(&item.value());
        by_name[at] = stamp;
      }
    }
    if (!part.additional) continue;
    for (size_t at = 0; at < out.size(); ++at) {
      if (by_name[at] != stamp) out[at].value.push_back(part.additional);
    }
  }
  for (Property& property : out) {
    if (property.value.empty()) property.value.push_back(&anything());
  }
  return out;
}

std::optional<FlatSchema::Nodes> FlatSchema::additional() const {
  Nodes nodes;
  bool declared = !required.empty();
  for (const Members& part : members) {
    if (part.additional) nodes.push_back(part.additional);
    declared = declared || (part.properties && !part.properties->empty());
  }
  if (nodes.empty() && declared) return std::nullopt;
  if (nodes.empty()) nodes.push_back(&anything());
  for (const Json* node : nodes) {
    if (node->is_boolean() && !node->get<bool>()) return std::nullopt;
  }
  return nodes;
}

Result<RuleId> SchemaCompiler::rule(FlatSchema::Nodes nodes) {
  for (const Json*& node : nodes) {
    NAUTILE_ASSIGN(node, resolve(node));
  }
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  // What says nothing.
  if (nodes.size() > 1) {
    std::erase_if(nodes, [](const Json* node) { return node->is_boolean() && node->get<bool>(); });
    if (nodes.empty()) nodes.push_back(&anything());
  }
  if (nodes.size() == 1 &&
      ((nodes[0]->is_boolean() && nodes[0]->get<bool>()) || (nodes[0]->is_object() && nodes[0]->empty()))) {
    return pieces_.any_value();
  }
  const auto [entry, added] = rules_.try_emplace(nodes, 0);
  if (!added) return entry->second;
  if (nodes.size() == 1) {  // the same text, the same rule
    const auto [same, fresh] = by_text_.try_emplace(nodes[0]->dump(-1, ' ', false, Json::error_handler_t::replace), 0);
    if (fresh) same->second = builder_.rule();
    entry->second = same->second;
    if (!fresh) return entry->second;
  } else {
    entry->second = builder_.rule();
  }
  queue_.push_back({nodes, entry->second});
  return entry->second;
}

Status SchemaCompiler::run() {
  while (!queue_.empty()) {
    const auto [nodes, rule] = std::move(queue_.back());
    queue_.pop_back();
    NAUTILE_RETURN_IF_ERROR(fill(nodes, rule));
    if (builder_.exhausted()) return too_complex(nodes[0], "too many states");
  }
  return {};
}

Status SchemaCompiler::fill(const FlatSchema::Nodes& nodes, RuleId rule) {
  const auto [begin, end] = builder_.of(rule);
  // Alternatives and nothing else: a rule for each.
  const Json& only = *nodes[0];
  for (const char* key : {"anyOf", "oneOf"}) {
    if (nodes.size() != 1 || !only.is_object() || !only.contains(key) || !only.at(key).is_array()) continue;
    bool alone = !only.at(key).empty();
    for (const auto& item : only.items()) alone = alone && (item.key() == key || is_annotation(item.key()));
    if (!alone) continue;
    size_t index = 0;
    for (const Json& alternative : only.at(key)) {
      const Json* node = child(child(&only, key, &only.at(key)), std::to_string(index++), &alternative);
      NAUTILE_ASSIGN(const RuleId inner, this->rule({node}));
      builder_.call(begin, inner, end);
    }
    return {};
  }
  NAUTILE_ASSIGN(const std::vector<FlatSchema> flats, flatten(nodes));
  for (const FlatSchema& flat : flats) {
    NAUTILE_RETURN_IF_ERROR(value(flat, kAnyType, TextForm::kJson, begin, end));
    if (builder_.exhausted()) break;
  }
  return {};
}

Status SchemaCompiler::value(const FlatSchema& flat, unsigned types, TextForm form, StateId from, StateId to) {
  if (flat.values) return constants(flat, types, form, from, to);
  types &= flat.kinds();
  if (types & kNull) builder_.literal(from, "null", to);
  if (types & kBoolean) {
    builder_.literal(from, "true", to);
    builder_.literal(from, "false", to);
  }
  if (types & kNumber) {
    const bool integer = !(types & kFraction);
    if (flat.bounds.low || flat.bounds.high) {
      pieces_.number(from, flat.bounds, integer, to);
    } else {
      builder_.call(from, integer ? pieces_.any_integer() : pieces_.any_number(), to);
    }
  }
  if (types & kString) {
    std::vector<const Pattern*> patterns;
    for (const auto& pattern : flat.patterns) patterns.push_back(pattern.get());
    const bool plain = patterns.empty() && flat.length.min == 0 && flat.length.max == TextLength::kAny;
    if (plain) {
      builder_.call(from, form == TextForm::kJson ? pieces_.string() : pieces_.any_text(), to);
    } else if (form == TextForm::kRaw) {
      pieces_.text(form).texts(from, patterns, flat.length, to);
    } else {
      const StateId open = builder_.state(), close = builder_.state();
      builder_.bytes(from, '"', '"', open);
      pieces_.text(form).texts(open, patterns, flat.length, close);
      builder_.bytes(close, '"', '"', to);
    }
  }
  if (types & kArray) NAUTILE_RETURN_IF_ERROR(array(flat, from, to));
  if (types & kObject) NAUTILE_RETURN_IF_ERROR(object(flat, from, to));
  return {};
}

// The listed values that the other keywords leave.
Status SchemaCompiler::constants(const FlatSchema& flat, unsigned types, TextForm form, StateId from, StateId to) {
  std::vector<std::string> texts;
  for (const Json* constant : *flat.values) {
    const unsigned type = type_of(*constant);
    if (!(type & flat.types)) continue;
    if (type & kNumber && (flat.bounds.low || flat.bounds.high)) {
      const auto number = decimal_of(*constant);
      if (!number) return error(flat.at, "enum", "invalid_schema: bounds beside a number of more than 18 digits");
      const auto& [low, high] = flat.bounds;
      const int over = low ? compare(*number, low->value) : 1, under = high ? compare(*number, high->value) : -1;
      if (over < 0 || (over == 0 && low->exclusive) || under > 0 || (under == 0 && high->exclusive)) continue;
    }
    if (type == kString) {
      const std::string& text = constant->get_ref<const std::string&>();
      if (!flat.patterns.empty()) {
        return error(flat.at, "enum", "invalid_schema: pattern or format beside enum is not supported");
      }
      const size_t length = code_points(text);
      if (length < flat.length.min || length > flat.length.max) continue;
      if (types & kString) texts.push_back(form == TextForm::kRaw ? text : '"' + json_escaped(text) + '"');
      continue;
    }
    if ((type == kObject && !flat.members.empty()) || (type == kArray && !flat.elements.empty())) {
      return error(flat.at, "enum", "invalid_schema: objects or arrays beside their keywords are not supported");
    }
    if (!(type & types)) continue;
    if (type == kObject || type == kArray) {
      pieces_.constant(from, *constant, to);
    } else {
      texts.push_back(constant->dump());
    }
  }
  builder_.literals(from, std::move(texts), to);
  return {};
}

Status SchemaCompiler::object(const FlatSchema& flat, StateId from, StateId to) {
  const std::vector<FlatSchema::Property> properties = flat.properties();
  const std::optional<FlatSchema::Nodes> additional = flat.additional();
  if (properties.empty() && additional && additional->size() == 1 && (*additional)[0]->is_boolean()) {
    builder_.call(from, pieces_.any_object(), to);
    return {};
  }
  const StateId open = builder_.state();
  builder_.bytes(from, '{', '{', open);
  // Before each property: no member has been written yet, or some have.
  StateId none = builder_.state(), some = builder_.state();
  pieces_.space(open, none);
  const auto member = [&](StateId key) {  // reached at once, or behind a comma
    const StateId comma = builder_.state();
    builder_.empty(none, key);
    builder_.bytes(some, ',', ',', comma);
    pieces_.space(comma, key);
  };
  const auto named = [&](StateId behind_key, const FlatSchema::Nodes& nodes, StateId next) -> Status {
    NAUTILE_ASSIGN(const RuleId rule, this->rule(nodes));
    const StateId colon = builder_.state(), before = builder_.state();
    builder_.bytes(behind_key, ':', ':', colon);
    pieces_.space(colon, before);
    builder_.call(before, rule, next);
    return {};
  };
  for (const FlatSchema::Property& property : properties) {
    if (builder_.exhausted()) return {};
    const StateId key = builder_.state(), next_none = builder_.state(), next_some = builder_.state();
    member(key);
    NAUTILE_RETURN_IF_ERROR(
        named(builder_.literal(key, '"' + json_escaped(property.name) + '"'), property.value, next_some));
    if (!property.required) {
      builder_.empty(none, next_none);
      builder_.empty(some, next_some);
    }
    none = next_none;
    some = next_some;
  }
  if (additional) {
    const StateId key = builder_.state(), behind = builder_.state();
    member(key);
    if (properties.empty()) {
      builder_.call(key, pieces_.string(), behind);
    } else {
      std::vector<std::string> listed;
      for (const FlatSchema::Property& property : properties) listed.push_back(property.name);
      const StateId inside = builder_.state(), close = builder_.state();
      builder_.bytes(key, '"', '"', inside);
      pieces_.text(TextForm::kJson).other_texts(inside, std::move(listed), CharSet::all(), close);
      builder_.bytes(close, '"', '"', behind);
    }
    NAUTILE_RETURN_IF_ERROR(named(behind, *additional, some));
  }
  const StateId last = builder_.state();
  builder_.bytes(none, '}', '}', to);
  pieces_.space(some, last);
  builder_.bytes(last, '}', '}', to);
  return {};
}

Status SchemaCompiler::array(const FlatSchema& flat, StateId from, StateId to) {
  size_t listed = 0;
  bool given = false;
  for (const FlatSchema::Elements& part : flat.elements) {
    if (part.prefix) listed = std::max(listed, part.prefix->size());
    given = given || part.items;
  }
  const uint64_t min = flat.min_items;
  // Without `items` there is nothing behind the listed ones, unless so many are asked for.
  uint64_t max = flat.max_items;
  if (listed > 0 && !given) max = std::min<uint64_t>(max, std::max<uint64_t>(min, listed));
  const auto element = [&](uint64_t index) -> Result<RuleId> {
    FlatSchema::Nodes nodes;
    for (const FlatSchema::Elements& part : flat.elements) {
      if (part.prefix && index < part.prefix->size()) {
        nodes.push_back(&(*part.prefix)[static_cast<size_t>(index)]);
      } else if (part.items) {
        nodes.push_back(part.items);
      }
    }
    if (nodes.empty()) nodes.push_back(&anything());
    return rule(std::move(nodes));
  };
  const StateId open = builder_.state();
  builder_.bytes(from, '[', '[', open);
  StateId at = builder_.state();
  pieces_.space(open, at);
  const auto close = [&](uint64_t count) {
    if (count == 0) return builder_.bytes(at, ']', ']', to);
    const StateId last = builder_.state();
    pieces_.space(at, last);
    builder_.bytes(last, ']', ']', to);
  };
  const uint64_t distinct = std::max<uint64_t>(listed, std::max<uint64_t>(min, 1));
  std::optional<RuleId> rest;
  for (uint64_t index = 0; index < max; ++index) {
    if (builder_.exhausted()) return {};
    if (index >= min) close(index);
    const StateId before = builder_.state();
    if (index == 0) {
      builder_.empty(at, before);
    } else {
      const StateId comma = builder_.state();
      builder_.bytes(at, ',', ',', comma);
      pieces_.space(comma, before);
    }
    if (index < listed || !rest) {
      NAUTILE_ASSIGN(const RuleId made, element(index));
      if (index >= listed) rest = made;
      const StateId next = builder_.state();
      builder_.call(before, made, next);
      at = next;
    } else if (max == TextLength::kAny && index >= distinct) {
      builder_.call(before, *rest, at);  // any number more
      return {};
    } else {
      const StateId next = builder_.state();
      builder_.call(before, *rest, next);
      at = next;
    }
  }
  if (max >= min) close(max);
  return {};
}

}  // namespace nautile::grammar
