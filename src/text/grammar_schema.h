// JSON Schema (draft 2020-12, the subset of the specification) to automaton states.
//
// Every place of a schema becomes a rule, so that neither deep nor recursive schemas recurse here. Members come in the
// schema's own order. What a schema leaves open is closed: an object that declares properties has no others unless
// additionalProperties is given, an array with prefixItems ends there unless items is given, and keywords without
// `type` imply theirs; so what is generated is always valid, though not everything valid can be generated. Strings with
// a length or a pattern are spelled without \uXXXX. An object's free members may repeat a name. Errors are
// kInvalidArgument with the place's path; the text begins with "invalid_schema: " or "schema_too_complex: ".
// Thread-safety: belongs to one thread. Source: spec api.md 10.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/grammar_json.h"

namespace nautile::grammar {

enum SchemaType : unsigned {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kNumber = kInteger | kFraction,
  kAnyType = 127,
};

// What one value must be: schemas that hold together, without their alternatives.
struct FlatSchema {
  using Nodes = std::vector<const Json*>;  // schemas that must hold together
  struct Members {
    const Json* properties;  // null: none declared
    const Json* additional;  // null: not given
  };
  struct Elements {
    const Json* prefix;
    const Json* items;
  };
  struct Property {
    std::string name;
    Nodes value;
    bool required;
  };
  unsigned types = kAnyType;
  unsigned implied = 0;  // types that keywords without `type` speak of
  bool typed = false;
  std::optional<std::vector<const Json*>> values;  // enum, const
  NumberBounds bounds;
  TextLength length;
  std::vector<std::shared_ptr<const Pattern>> patterns;
  std::vector<Members> members;
  std::vector<std::string> required;
  std::vector<Elements> elements;
  uint64_t min_items = 0, max_items = TextLength::kAny;
  const Json* at = nullptr;  // for messages

  unsigned kinds() const { return typed || implied == 0 ? types : types & implied; }
  // Declared properties in order, then required ones that are not declared.
  std::vector<Property> properties() const;
  // What other members must be; nullopt where there are none.
  std::optional<Nodes> additional() const;
};

class SchemaCompiler {
 public:
  // `schema` is what "#" means; all must outlive the compiler. lenient: keywords that are not supported are ignored and
  // listed.
  SchemaCompiler(Builder& builder, JsonPieces& pieces, const GrammarLimits& limits, const Json& schema,
                 std::string path, bool lenient);

  // The alternatives of a value that satisfies all `nodes`.
  Result<std::vector<FlatSchema>> flatten(const FlatSchema::Nodes& nodes);
  // The rule for such a value; it is filled by run().
  Result<RuleId> rule(FlatSchema::Nodes nodes);
  // A value of those of its types that are in `types`; strings of TextForm::kRaw come without quotes.
  Status value(const FlatSchema& flat, unsigned types, TextForm form, StateId from, StateId to);
  // Fills the rules asked for, and those that these ask for.
  Status run();

  const Json& root() const { return root_; }
  std::string path(const Json* node) const;
  const std::vector<std::string>& ignored() const { return ignored_; }

 private:
  struct Pending {
    const Json* node;
    enum Part : uint8_t { kWhole, kAnyOf, kOneOf } part;
    int depth;
  };
  struct Open {
    std::vector<Pending> pending;
    FlatSchema flat;
  };
  const Json* child(const Json* parent, std::string segment, const Json* node);
  Status error(const Json* node, const std::string& keyword, std::string what) const;
  Status too_complex(const Json* node, std::string what) const;
  Result<const Json*> resolve(const Json* node);
  Status keywords(const Json* node, int depth, Open& open);
  Status keyword(const Json* node, const std::string& key, const Json& value, Open& open);
  Status type_keyword(const Json* node, const Json& value, FlatSchema& flat);
  Status bound_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat);
  Status text_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat);
  Status values_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat);
  Status members_keyword(const Json* node, const std::string& key, const Json& value, FlatSchema& flat);
  bool spend(size_t steps) { return (merges_ += steps) <= limits_.merge_steps; }
  Status fill(const FlatSchema::Nodes& nodes, RuleId rule);
  Status constants(const FlatSchema& flat, unsigned types, TextForm form, StateId from, StateId to);
  Status object(const FlatSchema& flat, StateId from, StateId to);
  Status array(const FlatSchema& flat, StateId from, StateId to);

  Builder& builder_;
  JsonPieces& pieces_;
  const GrammarLimits& limits_;
  const Json& root_;
  const std::string path_;
  const bool lenient_;
  std::unordered_map<const Json*, std::pair<const Json*, std::string>> places_;  // parent and last segment
  std::map<FlatSchema::Nodes, RuleId> rules_;
  std::unordered_map<std::string, RuleId> by_text_;
  std::map<std::string, std::shared_ptr<const Pattern>> pattern_cache_;
  std::vector<std::pair<FlatSchema::Nodes, RuleId>> queue_;
  std::vector<std::string> ignored_;
  size_t merges_ = 0, pattern_states_ = 0;
};

// Whether a keyword says nothing about which values are valid.
bool is_annotation(std::string_view keyword);
// The expression of a `format`, null for one that is not known.
const char* format_expression(std::string_view format);

}  // namespace nautile::grammar
