// What the dialects share: model, sampling, limits, constraints, the conversation, the prompt's tokens.
#include "serve/translate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "serve/reasoning.h"

namespace nautile::serve {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

void read_bias(Fields& fields, Ask& ask, const TranslateContext& context) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > context.limits.biases) {
    return fields.fail("logit_bias", "invalid_value",
                       fmt::format("must not have more than {} entries", context.limits.biases));
  }
  for (auto it = bias->begin(); it != bias->end(); ++it) {
    int64_t id = -1;
    const std::string& key = it.key();
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return fields.fail("logit_bias", "invalid_value", "has a key that is no token id");
    }
    if (id < 0 || !context.model.tokenizer->has(static_cast<TokenId>(std::min<int64_t>(id, INT32_MAX)))) {
      return fields.fail("logit_bias", "token_id_out_of_range",
                         fmt::format("names the id {}, which is out of vocabulary", id));
    }
    if (!it.value().is_number()) return fields.fail("logit_bias", "invalid_type", "must map ids to numbers");
    const double value = it.value().get<double>();
    if (!(value >= -100 && value <= 100)) {
      return fields.fail("logit_bias", "invalid_value", "must hold numbers between -100 and 100");
    }
    ask.sampling.logit_bias[static_cast<TokenId>(id)] = value;
  }
}

void read_sampling(Fields& fields, Ask& ask) {
  SamplingParams& s = ask.sampling;
  fields.number("temperature", s.temperature, 0, 2);
  fields.number("top_p", s.top_p, 0, 1);
  fields.integer("top_k", s.top_k, -1, INT32_MAX);
  fields.number("min_p", s.min_p, 0, 1);
  fields.number("presence_penalty", s.presence_penalty, -2, 2);
  fields.number("frequency_penalty", s.frequency_penalty, -2, 2);
  fields.number("repetition_penalty", s.repetition_penalty, 0, 2, true);
}

void read_nvext(Fields& fields, Ask& ask) {
  const Json* nvext = fields.object("nvext");
  if (nvext == nullptr) return;
  Fields inner(*nvext, "nvext", fields.notes());
  inner.integer("top_k", ask.sampling.top_k, -1, INT32_MAX);
  inner.number("min_p", ask.sampling.min_p, 0, 1);
  inner.number("repetition_penalty", ask.sampling.repetition_penalty, 0, 2, true);
  inner.boolean("ignore_eos", ask.ignore_eos);
  bool greedy = false;
  if (inner.boolean("greed_sampling", greedy) && greedy) ask.sampling.temperature = 0;
  bool raw = false;
  if (inner.boolean("use_raw_prompt", raw) && raw) {
    inner.fail("use_raw_prompt", "unsupported_parameter", "is not supported; send the prompt to /v1/completions");
  }
  inner.accept(
      {"annotations", "max_thinking_tokens", "guided_json", "guided_regex", "guided_choice", "guided_grammar"});
  inner.finish();
}

}  // namespace

bool ServedModel::answers_to(const std::string& asked) const {
  const std::string wanted = lower(asked);
  if (wanted == lower(name) || legacy.contains(wanted)) return true;
  return std::any_of(names.begin(), names.end(), [&](const std::string& other) { return lower(other) == wanted; });
}

void read_model(Fields& fields, Ask& ask, const TranslateContext& context, ReasoningMode& fallback) {
  fallback = context.model.default_mode;
  std::string model;
  if (!fields.text("model", model) || model.empty()) {
    if (!context.default_model) {
      fields.fail("model", "missing_required_parameter",
                  fmt::format("is missing; this server has \"{}\"", context.model.name));
    }
    return;
  }
  if (const auto legacy = context.model.legacy.find(lower(model)); legacy != context.model.legacy.end()) {
    fallback = legacy->second;
    return;
  }
  if (context.model.answers_to(model)) return;
  if (ask.dialect == Dialect::kMessages && lower(model).starts_with("claude")) return;
  if (model.size() > 200) model.resize(200);
  fields.notes().fail(
      {404, "model_not_found",
       fmt::format("The model \"{}\" is not served here; this server has \"{}\".", model, context.model.name),
       "model"});
}

void read_generation(Fields& fields, Ask& ask, const TranslateContext& context) {
  const Limits& limits = context.limits;
  const size_t vocabulary = context.model.tokenizer->size();
  ask.sampling.temperature = context.model.temperature;
  ask.sampling.top_p = context.model.top_p;
  read_nvext(fields, ask);
  read_sampling(fields, ask);
  int64_t seed = 0;
  if (fields.integer("seed", seed, INT64_MIN, INT64_MAX)) {
    ask.sampling.seed = static_cast<uint64_t>(seed);
  } else {
    ask.sampling.seed = std::stoull(http::random_hex(7), nullptr, 16);  // below 2^56: exact in every JSON reader
  }
  int64_t value = 0;
  if (fields.integer("n", value, 1, limits.n)) ask.n = static_cast<int>(value);
  fields.integer("min_tokens", ask.min_tokens, 0, INT32_MAX);
  fields.texts("stop", ask.stop, limits.stops, limits.stop_bytes);
  fields.ids("stop_token_ids", ask.stop_ids, limits.words, vocabulary);
  fields.ids("allowed_token_ids", ask.allowed_ids, vocabulary, vocabulary);
  if (fields.has("allowed_token_ids") && ask.allowed_ids.empty()) {
    fields.fail("allowed_token_ids", "invalid_value", "must not be empty");
  }
  fields.texts("bad_words", ask.bad_words, limits.words, limits.stop_bytes);
  fields.boolean("include_stop_str_in_output", ask.include_stop);
  fields.boolean("no_stop_trim", ask.include_stop);
  fields.boolean("stop_in_reasoning", ask.stop_in_reasoning);
  fields.boolean("ignore_eos", ask.ignore_eos);
  fields.boolean("skip_special_tokens", ask.skip_special);
  fields.boolean("return_tokens_as_token_ids", ask.tokens_as_ids);
  fields.boolean("return_token_ids", ask.return_token_ids);
  fields.boolean("return_prompt_text", ask.return_prompt_text);
  fields.boolean("echo", ask.echo);
  fields.integer("truncate_prompt_tokens", ask.truncate_prompt, 1, INT32_MAX);
  read_bias(fields, ask, context);
  if (fields.integer("prompt_logprobs", value, 0, limits.logprobs)) ask.prompt_logprobs = static_cast<int>(value);

  fields.boolean("stream", ask.stream);
  if (const Json* options = fields.object("stream_options")) {
    if (!ask.stream) fields.fail("stream_options", "conflicting_parameters", "is only for stream: true");
    Fields inner(*options, "stream_options", fields.notes());
    inner.boolean("include_usage", ask.include_usage);
    inner.boolean("continuous_usage_stats", ask.continuous_usage);
    inner.accept({"include_obfuscation"});
    inner.finish();
  }
  if (ask.prompt_logprobs >= 0 && ask.stream) {
    fields.fail("prompt_logprobs", "conflicting_parameters", "cannot be combined with stream: true");
  }
  if (const Json* beam = fields.get("use_beam_search"); beam != nullptr && *beam != false) {
    fields.fail("use_beam_search", "unsupported_parameter", "is not supported");
  }
  fields.refuse({"custom_logit_processor", "logits_processors", "audio", "web_search_options"});
  if (const Json* modalities = fields.get("modalities")) {
    if (*modalities != Json::array({"text"})) {
      fields.fail("modalities", "unsupported_parameter", "can only be [\"text\"]");
    }
  }
  fields.accept({"metadata", "store", "service_tier", "safety_identifier", "verbosity", "prediction",
                 "prompt_cache_retention", "prompt_cache_options", "spaces_between_special_tokens", "length_penalty"});
  read_identity(fields, ask, context);
}

void read_identity(Fields& fields, Ask& ask, const TranslateContext& context) {
  const size_t longest = context.limits.id_bytes;
  std::string text;
  for (const char* name : {"user", "prompt_cache_key", "session_id", "user_id", "rid"}) {
    if (fields.text(name, text, longest) && std::string_view(name) != "rid") ask.user = text;
  }
  if (fields.text("cache_salt", ask.cache_salt, longest) && ask.cache_salt.empty()) {
    fields.fail("cache_salt", "invalid_value", "must not be empty");
  }
  int64_t priority = 0;
  if (fields.integer("priority", priority, INT64_MIN, INT64_MAX) && context.may_set_priority) {
    ask.priority = static_cast<int>(std::clamp<int64_t>(priority, -1000, 1000));
  }
  if (const Json* metadata = fields.object("metadata")) {
    if (metadata->size() > 16) fields.fail("metadata", "invalid_value", "must not have more than 16 pairs");
    for (auto it = metadata->begin(); it != metadata->end(); ++it) {
      const bool fits =
          it.key().size() <= 64 && (!it.value().is_string() || it.value().get_ref<const std::string&>().size() <= 512);
      if (!fits) fields.fail("metadata", "invalid_value", "must have keys of up to 64 and values of up to 512 bytes");
    }
  }
}

void read_reasoning_into(Fields& fields, Ask& ask, const TranslateContext& context, ReasoningMode fallback) {
  const ReasoningChoice choice = read_reasoning(fields, ask.dialect, context.model.profile, fallback);
  ask.encode.mode = choice.mode;
  ask.encode.profile = context.model.profile;
  ask.encode.reopen_after_assistant = true;
  ask.thinking_budget = choice.budget;
  ask.include_reasoning = !choice.exclude;
  ask.reasoning_summary = choice.summary;
  ask.omit_thinking = choice.omit;
}

void check_sizes(const Json& request, const Limits& limits, FieldNotes& notes) {
  const auto messages = request.find("messages");
  if (messages != request.end() && messages->is_array()) {
    if (messages->size() > limits.messages) {
      notes.fail(bad_request("invalid_value",
                             fmt::format("messages must not have more than {} items.", limits.messages), "messages"));
    }
    for (const Json& message : *messages) {
      if (!message.is_object()) continue;
      const auto content = message.find("content");
      if (content != message.end() && content->is_array() && content->size() > limits.parts) {
        notes.fail(bad_request("invalid_value",
                               fmt::format("A message must not have more than {} content parts.", limits.parts),
                               "messages"));
      }
    }
  }
  for (const char* name : {"tools", "functions"}) {
    const auto tools = request.find(name);
    if (tools == request.end() || !tools->is_array()) continue;
    if (tools->size() > limits.tools) {
      notes.fail(
          bad_request("invalid_value", fmt::format("{} must not have more than {} items.", name, limits.tools), name));
      return;
    }
    size_t total = 0;
    for (const Json& tool : *tools) {
      const size_t bytes = tool.dump(-1, ' ', false, Json::error_handler_t::replace).size();
      total += bytes;
      if (bytes > limits.tool_bytes || total > limits.tools_bytes) {
        notes.fail(bad_request("schema_too_complex", "The tools are too large.", name));
        return;
      }
    }
  }
}

void read_conversation(const Json& request, Ask& ask, const TranslateContext& context, FieldNotes& notes) {
  check_sizes(request, context.limits, notes);
  if (notes.error) return;
  auto conversation = parse_conversation(request);
  if (!conversation.ok()) {
    notes.fail(from_status(conversation.status()));
    return;
  }
  ask.conversation = std::move(conversation).value();
  ask.chat = true;
  const std::vector<Tool> declared = ask.conversation.declared_tools();
  for (const std::string& name : ask.allowed_tools) {
    if (std::none_of(declared.begin(), declared.end(), [&](const Tool& tool) { return tool.name == name; })) {
      notes.fail(
          bad_request("invalid_value", "tool_choice: allows a tool that is not in tools: " + name, "tool_choice"));
      return;
    }
  }
  const Message& last = ask.conversation.messages.back();
  if (ask.constraint.kind != Constraint::kNone && last.wo_eos && !last.content.empty()) {
    notes.fail(bad_request("conflicting_parameters", "A response format cannot be combined with a content prefix.",
                           ask.constraint.field));
  }
  // A turn that comes back is what was generated, token by token. Clients that drop the reasoning of a tool turn, or of
  // an answer behind one, get it back from what we remember; what a client changed is taken as the client says.
  std::vector<Message>& messages = ask.conversation.messages;
  for (size_t i = 0; i < messages.size(); ++i) {
    Message& message = messages[i];
    if (message.role != Role::kAssistant) continue;
    const bool calls = !message.tool_calls.empty();
    const std::string id =
        calls ? message.tool_calls.front().id : answer_id(std::span(messages).first(i), message.content);
    std::shared_ptr<const Replay> kept;
    if (context.replay != nullptr && !id.empty()) kept = context.replay->find(context.owner, id);
    if (kept && !calls && kept->content != message.content) kept = nullptr;
    const bool reasoned = kept && (!kept->reasoning.empty() || (kept->generated && kept->generated->thinking));
    const bool dropped = message.reasoning_content.empty() && ask.encode.mode != ReasoningMode::kNonThink;
    if (dropped && reasoned) message.reasoning_content = kept->reasoning;
    if (kept && kept->is(message)) message.generated = kept->generated;
    if (!calls) continue;
    std::string found = "client";
    if (dropped) {
      found = reasoned ? "exact" : "missing";
      if (!reasoned && context.strict_replay) {
        notes.fail(bad_request("missing_required_parameter",
                               "The reasoning_content of an assistant message with tool calls is missing.",
                               fmt::format("messages[{}].reasoning_content", i)));
      }
    }
    if (ask.replay != "missing") ask.replay = found;
  }
}

Outcome<Ask> conclude(Ask ask, FieldNotes& notes, const TranslateContext& context) {
  if (notes.error) return *notes.error;
  if (context.strict && !notes.ignored.empty()) {
    return bad_request("unknown_parameter", fmt::format("The parameter {} is unknown.", notes.ignored.front()),
                       notes.ignored.front());
  }
  if (ask.max_tokens && ask.min_tokens > *ask.max_tokens) {
    return bad_request("invalid_value", "min_tokens must not be larger than max_tokens.", "min_tokens");
  }
  ask.ignored = std::move(notes.ignored);
  return ask;
}

ApiError context_exceeded(Dialect dialect, int64_t prompt_tokens, int64_t context) {
  const bool messages = dialect == Dialect::kMessages;
  ApiError error = bad_request(
      "context_length_exceeded",
      messages
          ? fmt::format("prompt is too long: {} tokens > {} maximum", prompt_tokens, context)
          : fmt::format(
                "This model's maximum context length is {} tokens, but the prompt has {} tokens. Please shorten it.",
                context, prompt_tokens),
      dialect == Dialect::kCompletions ? "prompt"
      : dialect == Dialect::kResponses ? "input"
                                       : "messages");
  error.extra = {{"n_prompt_tokens", prompt_tokens}, {"n_ctx", context}};
  return error;
}

std::optional<ApiError> prepare(Ask& ask, const TranslateContext& context) {
  const ServedModel& model = context.model;
  if (ask.chat) {
    Conversation conversation = ask.conversation;
    conversation.tool_choice = {};  // a demanded call is forced on the output, after any reasoning
    auto ids = encode(*model.tokenizer, conversation, ask.encode);
    if (!ids.ok()) return from_status(ids.status());
    ask.prompts = {std::move(ids).value()};
  }
  int64_t longest = 0;
  for (std::vector<TokenId>& prompt : ask.prompts) {
    const auto keep = static_cast<size_t>(ask.truncate_prompt);
    if (keep > 0 && prompt.size() > keep) prompt.erase(prompt.begin(), prompt.end() - static_cast<ptrdiff_t>(keep));
    longest = std::max<int64_t>(longest, static_cast<int64_t>(prompt.size()));
  }
  const int64_t room = model.context - longest;
  const bool score_only = ask.max_tokens && *ask.max_tokens == 0;
  if (room < (score_only ? 0 : 1)) return context_exceeded(ask.dialect, longest, model.context);
  ask.effective_max_tokens = std::min({ask.max_tokens.value_or(model.max_output), model.max_output, room});
  ask.min_tokens = std::min(ask.min_tokens, ask.effective_max_tokens);
  return std::nullopt;
}

}  // namespace nautile::serve
