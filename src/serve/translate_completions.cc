// POST /v1/completions: raw text or ids, and fill in the middle (spec api.md 8).
#include <fmt/format.h>

#include <algorithm>

#include "serve/reasoning.h"
#include "serve/translate.h"

namespace nautile::serve {
namespace {

class PromptReader {
 public:
  PromptReader(Fields& fields, Ask& ask, const TranslateContext& context, bool add_bos)
      : fields_(fields), ask_(ask), context_(context), add_bos_(add_bos) {}

  void read() {
    const Json* prompt = fields_.get("prompt");
    if (prompt == nullptr) return fields_.fail("prompt", "missing_required_parameter", "is missing");
    if (prompt->is_string()) return text(prompt->get_ref<const std::string&>());
    if (!prompt->is_array() || prompt->empty()) {
      return fields_.fail("prompt", "invalid_type",
                          "must be a string, token ids, or an array of these that is not empty");
    }
    const Json& first = prompt->front();
    if (first.is_number()) return ids(*prompt);
    if (prompt->size() > static_cast<size_t>(context_.limits.prompts)) {
      return fields_.fail("prompt", "invalid_value",
                          fmt::format("must not hold more than {} prompts", context_.limits.prompts));
    }
    for (const Json& item : *prompt) {
      if (item.is_string() != first.is_string() || item.is_array() != first.is_array() ||
          (!item.is_string() && !item.is_array())) {
        return fields_.fail("prompt", "invalid_type", "must hold either strings or arrays of token ids");
      }
      if (item.is_string()) {
        text(item.get_ref<const std::string&>());
      } else {
        ids(item);
      }
      if (fields_.notes().error) return;
    }
  }

 private:
  void text(const std::string& prompt) {
    std::vector<Segment> segments = {{prompt, ask_.parse_specials}};
    auto encoded = context_.model.tokenizer->encode(segments);
    if (!encoded.ok()) return fields_.notes().fail(from_status(encoded.status()));
    std::vector<TokenId> made = std::move(encoded).value();
    const TokenId bos = context_.model.tokens.bos;
    if (add_bos_ && (made.empty() || made.front() != bos)) made.insert(made.begin(), bos);
    if (made.empty()) return fields_.fail("prompt", "invalid_value", "is empty and no special token is added");
    ask_.prompts.push_back(std::move(made));
    ask_.prompt_texts.push_back(prompt);
  }

  void ids(const Json& list) {
    std::vector<TokenId> made;
    const size_t vocabulary = context_.model.tokenizer->size();
    for (const Json& item : list) {
      const auto id = whole_number(item);
      if (!id) return fields_.fail("prompt", "invalid_type", "must hold either strings or token ids");
      if (*id < 0 || static_cast<uint64_t>(*id) >= vocabulary) {
        return fields_.fail("prompt", "token_id_out_of_range",
                            fmt::format("holds the token id {}, which is out of vocabulary", *id));
      }
      made.push_back(static_cast<TokenId>(*id));
    }
    if (made.empty()) return fields_.fail("prompt", "invalid_value", "must not hold an empty prompt");
    auto decoded = context_.model.tokenizer->decode(made);
    std::string valid;
    Utf8Gate gate;
    if (decoded.ok()) gate.push(*decoded, valid);
    gate.finish(valid);
    ask_.prompts.push_back(std::move(made));
    ask_.prompt_texts.push_back(std::move(valid));
  }

  Fields& fields_;
  Ask& ask_;
  const TranslateContext& context_;
  bool add_bos_;
};

void fill_in_the_middle(Fields& fields, Ask& ask, const TranslateContext& context, const std::string& suffix) {
  const Json* prompt = fields.get("prompt");
  if (prompt == nullptr || !prompt->is_string() || ask.echo) {
    return fields.fail("suffix", "conflicting_parameters", "needs one prompt as a string, and no echo");
  }
  const auto segments = render_fim(prompt->get<std::string>(), suffix);
  for (const char* literal : {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}) {
    if (!context.model.tokenizer->id_of(literal)) {
      return fields.fail("suffix", "unsupported_parameter", "is not supported by this model's vocabulary");
    }
  }
  auto encoded = context.model.tokenizer->encode(segments);
  if (!encoded.ok()) return fields.notes().fail(from_status(encoded.status()));
  ask.prompts.push_back(std::move(encoded).value());
  ask.prompt_texts.push_back(prompt->get<std::string>());
  ask.max_tokens = std::min(ask.max_tokens.value_or(16), context.limits.fim_tokens);
}

}  // namespace

Outcome<Ask> translate_completions(const Json& body, const TranslateContext& context) {
  Ask ask;
  ask.dialect = Dialect::kCompletions;
  ask.chat = false;
  FieldNotes notes;
  Fields fields(body, "", notes);
  ReasoningMode fallback{};
  read_model(fields, ask, context, fallback);
  if (notes.error) return *notes.error;
  const ReasoningChoice reasoning =
      read_reasoning(fields, ask.dialect, context.model.profile, ReasoningMode::kNonThink);
  if (reasoning.mode != ReasoningMode::kNonThink) {
    notes.fail(bad_request("unsupported_value",
                           "Completions are raw text: there is no thinking here. Use /v1/chat/completions.",
                           "reasoning_effort"));
  }
  ask.encode.mode = ReasoningMode::kNonThink;
  read_generation(fields, ask, context);
  read_constraint(fields, ask);

  int64_t limit = 16, count = -1;
  fields.integer("max_completion_tokens", limit, 1, INT64_MAX);
  fields.integer("max_tokens", limit, ask.echo || ask.prompt_logprobs >= 0 ? 0 : 1, INT64_MAX);
  ask.max_tokens = limit;
  if (const Json* logprobs = fields.get("logprobs"); logprobs != nullptr && !logprobs->is_boolean()) {
    if (fields.integer("logprobs", count, 0, context.limits.logprobs)) {
      ask.logprobs = true;
      ask.sampling.top_logprobs = static_cast<int>(count);
    }
  } else if (logprobs != nullptr) {
    fields.wrong("logprobs", "a whole number");
  }
  if (ask.echo && ask.logprobs && ask.prompt_logprobs < 0) ask.prompt_logprobs = ask.sampling.top_logprobs;
  if (fields.integer("best_of", count, 1, context.limits.best_of)) {
    if (count < ask.n) fields.fail("best_of", "invalid_value", "must not be smaller than n");
    if (count > ask.n && ask.stream)
      fields.fail("best_of", "conflicting_parameters", "cannot be combined with stream: true");
    ask.best_of = static_cast<int>(count);
  }
  ask.best_of = std::max(ask.best_of, ask.n);
  if (ask.best_of > ask.n && ask.sampling.top_logprobs < 0) ask.sampling.top_logprobs = 0;
  bool add_bos = true;
  fields.boolean("add_special_tokens", add_bos);
  ask.parse_specials = true;
  fields.boolean("parse_special_tokens", ask.parse_specials);

  std::string suffix;
  const bool fim = fields.text("suffix", suffix) && !suffix.empty();
  if (!notes.error) {
    if (fim) {
      fill_in_the_middle(fields, ask, context, suffix);
    } else {
      PromptReader(fields, ask, context, add_bos).read();
    }
  }
  if (ask.prompts.size() * static_cast<size_t>(ask.best_of) > static_cast<size_t>(context.limits.prompts)) {
    notes.fail(bad_request("invalid_value",
                           fmt::format("Prompts times n must not be more than {}.", context.limits.prompts), "n"));
  }
  fields.finish();
  return conclude(std::move(ask), notes, context);
}

}  // namespace nautile::serve
