#include "text/grammar.h"

#include <algorithm>
#include <utility>

#include "text/grammar_gbnf.h"

namespace nautile {
namespace {

using namespace grammar;

// Depth and size of a schema, before anything that recurses is asked about it.
Status check_size(const Json& schema, const std::string& place, const GrammarLimits& limits) {
  std::vector<std::pair<const Json*, int>> work = {{&schema, 1}};
  size_t bytes = 0;
  while (!work.empty()) {
    const auto [node, depth] = work.back();
    work.pop_back();
    // A schema's own level is an object or an object within one (properties).
    if (depth > 2 * limits.schema_depth) {
      return Status(Code::kInvalidArgument, "schema_too_complex: it is nested too deeply", place);
    }
    bytes += 2;
    if (node->is_string()) bytes += node->get_ref<const std::string&>().size();
    if (node->is_object()) {
      for (const auto& item : node->items()) {
        bytes += item.key().size() + 4;
        work.push_back({&item.value(), depth + 1});
      }
    } else if (node->is_array()) {
      for (const Json& item : *node) work.push_back({&item, depth + 1});
    }
    if (bytes > limits.schema_bytes) {
      return Status(Code::kInvalidArgument,
                    "schema_too_complex: it is larger than " + std::to_string(limits.schema_bytes) + " bytes", place);
    }
  }
  return {};
}

class Compiler {
 public:
  Compiler(const GrammarRequest& request, const GrammarLimits& limits)
      : request_(request), limits_(limits), builder_(limits.states), pieces_(builder_) {}

  Result<Program> run(std::vector<std::string>& ignored) {
    const RuleId root = builder_.rule();
    const auto [begin, end] = builder_.of(root);
    if (request_.text.whitespace) {
      Status status = pieces_.set_whitespace(*request_.text.whitespace, limits_);
      if (!status.ok()) return std::move(status).at("whitespace_pattern");
    }
    const bool tools =
        request_.tools && !request_.tools->tools.empty() && request_.tools->choice.kind != ToolChoice::kNone;
    const bool forced = tools && request_.tools->choice.kind != ToolChoice::kAuto;
    const bool free_text = request_.text.kind == TextConstraint::kNone;
    StateId before_block = builder_.state();
    if (!forced && free_text) {
      builder_.bytes(begin, 0, 255, begin);
      builder_.empty(begin, end);
      before_block = begin;
    } else {
      if (!forced) NAUTILE_RETURN_IF_ERROR(text(begin, end));
      builder_.literal(begin, "\n\n", before_block);
    }
    if (tools) {
      NAUTILE_RETURN_IF_ERROR(
          add_tool_calls(*request_.tools, builder_, pieces_, limits_, compilers_, before_block, end));
    }
    auto program = builder_.finish(root, limits_.nesting);
    if (!program.ok()) return program.status().at(forced || free_text ? "tools" : request_.text.place);
    for (const auto& compiler : compilers_) {
      ignored.insert(ignored.end(), compiler->ignored().begin(), compiler->ignored().end());
    }
    std::sort(ignored.begin(), ignored.end());
    ignored.erase(std::unique(ignored.begin(), ignored.end()), ignored.end());
    return program;
  }

 private:
  Status text(StateId from, StateId to) {
    const TextConstraint& text = request_.text;
    switch (text.kind) {
      case TextConstraint::kNone:
        break;
      case TextConstraint::kJsonObject:
        builder_.call(from, pieces_.any_object(), to);
        break;
      case TextConstraint::kJsonSchema: {
        compilers_.push_back(
            std::make_unique<SchemaCompiler>(builder_, pieces_, limits_, text.schema, text.place, text.lenient));
        NAUTILE_ASSIGN(const RuleId rule, compilers_.back()->rule({&text.schema}));
        NAUTILE_RETURN_IF_ERROR(compilers_.back()->run());
        builder_.call(from, rule, to);
        break;
      }
      case TextConstraint::kRegex: {
        auto pattern = Pattern::parse(text.pattern, true, limits_);
        if (!pattern.ok()) return pattern.status().at(text.place);
        pieces_.text(TextForm::kRaw).texts(from, {&*pattern}, {}, to);
        break;
      }
      case TextConstraint::kGbnf: {
        auto rule = add_gbnf(text.pattern, builder_, pieces_, limits_);
        if (!rule.ok()) return rule.status().at(text.place);
        builder_.call(from, *rule, to);
        break;
      }
      case TextConstraint::kChoice: {
        size_t bytes = 0;
        for (const std::string& choice : text.choices) bytes += choice.size();
        if (text.choices.empty())
          return Status(Code::kInvalidArgument, "invalid_schema: there is no choice", text.place);
        if (text.choices.size() > limits_.enum_values || bytes > limits_.schema_bytes) {
          return Status(Code::kInvalidArgument, "schema_too_complex: too many choices", text.place);
        }
        builder_.literals(from, text.choices, to);
        break;
      }
    }
    if (builder_.exhausted()) return Status(Code::kInvalidArgument, "schema_too_complex: too many states", text.place);
    return {};
  }

  const GrammarRequest& request_;
  const GrammarLimits& limits_;
  Builder builder_;
  JsonPieces pieces_;
  std::vector<std::unique_ptr<SchemaCompiler>> compilers_;
};

}  // namespace

Status check_grammar_size(const GrammarRequest& request, const GrammarLimits& limits) {
  NAUTILE_RETURN_IF_ERROR(check_size(request.text.schema, request.text.place, limits));
  for (size_t i = 0; request.tools && i < request.tools->tools.size(); ++i) {
    NAUTILE_RETURN_IF_ERROR(
        check_size(request.tools->tools[i].parameters, "tools[" + std::to_string(i) + "].function.parameters", limits));
  }
  return {};
}

Grammar::Grammar(Program program, std::shared_ptr<const TokenTrie> trie, const GrammarLimits& limits)
    : program_(std::move(program)), trie_(std::move(trie)), machine_(program_, *trie_, limits) {}

Result<std::shared_ptr<const Grammar>> Grammar::compile(const GrammarRequest& request,
                                                        std::shared_ptr<const TokenTrie> trie,
                                                        const GrammarLimits& limits) {
  if (!trie->spells_all_bytes()) {
    return Status(Code::kUnsupported, "the vocabulary has no token for some byte: text cannot be constrained",
                  "tokenizer.json");
  }
  NAUTILE_RETURN_IF_ERROR(check_grammar_size(request, limits));
  std::vector<std::string> ignored;
  NAUTILE_ASSIGN(Program program, Compiler(request, limits).run(ignored));
  const auto grammar = std::shared_ptr<Grammar>(new Grammar(std::move(program), std::move(trie), limits));
  grammar->ignored_ = std::move(ignored);
  return std::shared_ptr<const Grammar>(grammar);
}

size_t Grammar::bytes() const {
  return program_.bytes() + counters().bytes;
}

Machine::Counters Grammar::counters() const {
  const std::lock_guard guard(lock_);
  return machine_.counters();
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  const std::lock_guard guard(grammar_->lock_);
  cell_ = grammar_->machine_.open_cell();
}

GrammarMatcher::GrammarMatcher(const GrammarMatcher& other) : GrammarMatcher(other.grammar_) {
  const std::lock_guard guard(grammar_->lock_);
  grammar_->machine_.copy_cell(other.cell_, cell_);
  finished_ = other.finished_;
}

GrammarMatcher::GrammarMatcher(GrammarMatcher&& other) noexcept
    : grammar_(std::move(other.grammar_)), cell_(other.cell_), finished_(other.finished_) {}

GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher other) noexcept {
  std::swap(grammar_, other.grammar_);
  std::swap(cell_, other.cell_);
  std::swap(finished_, other.finished_);
  return *this;
}

GrammarMatcher::~GrammarMatcher() {
  if (!grammar_) return;
  const std::lock_guard guard(grammar_->lock_);
  grammar_->machine_.close_cell(cell_);
}

bool GrammarMatcher::accept(TokenId id) {
  if (finished_) return false;
  const std::lock_guard guard(grammar_->lock_);
  if (grammar_->trie_->is_end(id)) {
    finished_ = grammar_->machine_.may_end(cell_);
    return finished_;
  }
  return grammar_->machine_.accept_token(cell_, id);
}

bool GrammarMatcher::accept_bytes(std::string_view bytes) {
  if (finished_) return false;
  const std::lock_guard guard(grammar_->lock_);
  return grammar_->machine_.accept_bytes(cell_, bytes);
}

void GrammarMatcher::fill_mask(std::span<uint32_t> bits) {
  if (finished_) {  // nothing may follow
    std::fill(bits.begin(), bits.end(), 0u);
    return;
  }
  const std::lock_guard guard(grammar_->lock_);
  grammar_->machine_.fill_mask(cell_, bits);
}

bool GrammarMatcher::can_end() const {
  if (finished_) return true;
  const std::lock_guard guard(grammar_->lock_);
  return grammar_->machine_.may_end(cell_);
}

std::string GrammarMatcher::forced_bytes(size_t limit) {
  if (finished_) return {};
  const std::lock_guard guard(grammar_->lock_);
  return grammar_->machine_.forced(cell_, limit);
}

void GrammarMatcher::reset() {
  const std::lock_guard guard(grammar_->lock_);
  grammar_->machine_.reset_cell(cell_);
  finished_ = false;
}

}  // namespace nautile
