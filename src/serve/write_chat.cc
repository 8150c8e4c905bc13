// Chat completions, whole and in chunks (spec api.md 7.4, 7.5, 9.6).
#include <fmt/format.h>

#include <cmath>

#include "serve/http.h"
#include "serve/reply.h"
#include "serve/sse.h"

namespace nautile::serve {

const char* ChoiceState::finish_reason() const {
  switch (summary.finish) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
    case FinishReason::kStop:
      break;
  }
  return "stop";
}

double ChoiceState::mean_logprob() const {
  double sum = 0;
  for (const TokenEvent& event : tokens) sum += event.logprob;
  return tokens.empty() ? -1e30 : sum / static_cast<double>(tokens.size());
}

Json usage_json(const UsageCount& u) {
  return {{"prompt_tokens", u.prompt},
          {"completion_tokens", u.completion},
          {"total_tokens", u.prompt + u.completion},
          {"prompt_tokens_details", {{"cached_tokens", u.cached}}},
          {"completion_tokens_details", {{"reasoning_tokens", u.reasoning}}},
          {"prompt_cache_hit_tokens", u.cached},
          {"prompt_cache_miss_tokens", u.prompt - u.cached}};
}

Json stop_reason_json(const OutputSummary& summary) {
  if (!summary.stop_string.empty()) return summary.stop_string;
  if (summary.stop_id) return *summary.stop_id;
  return nullptr;
}

std::string token_text(const Ask& ask, const Tokenizer& tokenizer, TokenId id) {
  if (ask.tokens_as_ids) return fmt::format("token_id:{}", id);
  std::string text;
  Utf8Gate gate;
  gate.push(tokenizer.bytes_of(id), text);
  gate.finish(text);
  return text;
}

double finite_logprob(float logprob) {
  return std::isfinite(logprob) ? logprob : -9999.0;
}

namespace {

class ChatWriter final : public ReplyWriter {
 public:
  ChatWriter(const Ask& ask, const ReplyContext& context)
      : ask_(ask), context_(context), id_("chatcmpl-" + http::random_hex(16)) {
    head_ = R"({"id":")" + id_ + R"(","object":"chat.completion.chunk","created":)" + std::to_string(context.created) +
            R"(,"model":)";
    append_quoted(context.model.name, head_);
    head_ += R"(,"system_fingerprint":)";
    append_quoted(context.model.fingerprint, head_);
    head_ += R"(,"choices":[)";
  }

  std::string id() const override { return id_; }
  void start(std::string&) override {}

  void piece(const ChoiceState& state, const Piece& piece, const UsageCount& usage, std::string& out) override {
    role(state, usage, out);
    switch (piece.kind) {
      case OutputEvent::kReasoning:
        text_chunk(state, "reasoning_content", piece, usage, out);
        break;
      case OutputEvent::kContent:
        text_chunk(state, "content", piece, usage, out);
        break;
      case OutputEvent::kToolStart: {
        const Call& call = state.calls[piece.call];
        if (ask_.legacy_functions) {
          Json delta = {{"function_call", {{"name", call.name}, {"arguments", ""}}}};
          chunk(state.index, compact(delta), "null", "null", usage, out);
          break;
        }
        Json header = {{"index", piece.call},
                       {"id", call.id},
                       {"type", "function"},
                       {"function", {{"name", call.name}, {"arguments", ""}}}};
        chunk(state.index, compact({{"tool_calls", Json::array({header})}}), "null", "null", usage, out);
        break;
      }
      case OutputEvent::kToolArguments: {
        std::string delta = ask_.legacy_functions ? R"({"function_call":{"arguments":)"
                                                  : R"({"tool_calls":[{"index":)" + std::to_string(piece.call) +
                                                        R"(,"function":{"arguments":)";
        append_quoted(piece.text, delta);
        delta += ask_.legacy_functions ? "}}" : "}}]}";
        chunk(state.index, delta, "null", "null", usage, out);
        break;
      }
      case OutputEvent::kToolEnd:
        break;
    }
  }

  void end_choice(const ChoiceState& state, const UsageCount& usage, std::string& out) override {
    role(state, usage, out);
    chunk(state.index, R"({"content":""})", "null", '"' + std::string(finish_of(state)) + '"', usage, out);
  }

  void finish(const std::vector<const ChoiceState*>&, const UsageCount& usage, std::string& out) override {
    if (ask_.include_usage) append_data(head_ + "],\"usage\":" + compact(usage_json(usage)) + "}", out);
    append_data("[DONE]", out);
  }

  void fail(const ApiError& error, std::string& out) override {
    append_data(compact(error_body(error, Dialect::kOpenAi, context_.request_id)), out);
    append_data("[DONE]", out);
  }

  std::string keep_alive() override { return ": keep-alive\n\n"; }

  Json body(const std::vector<const ChoiceState*>& choices, const UsageCount& usage) override {
    Json list = Json::array();
    for (const ChoiceState* state : choices) {
      Json message = {{"role", "assistant"}};
      const bool no_text = state->content.empty() && !state->calls.empty();
      message["content"] = no_text ? Json(nullptr) : Json(state->content);
      if (ask_.encode.mode != ReasoningMode::kNonThink && ask_.include_reasoning) {
        message["reasoning_content"] = state->reasoning;
        if (context_.reasoning_alias) message["reasoning"] = state->reasoning;
      }
      if (!state->calls.empty() && ask_.legacy_functions) {
        message["function_call"] = {{"name", state->calls[0].name}, {"arguments", state->calls[0].arguments}};
      } else if (!state->calls.empty()) {
        Json calls = Json::array();
        for (const Call& call : state->calls) {
          calls.push_back({{"id", call.id},
                           {"type", "function"},
                           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
        }
        message["tool_calls"] = calls;
      }
      message["refusal"] = nullptr;
      Json choice = {{"index", state->index}, {"message", message}};
      choice["logprobs"] =
          ask_.logprobs ? logprobs_json(*state, state->reasoning_at, state->content_at) : Json(nullptr);
      choice["finish_reason"] = finish_of(*state);
      choice["stop_reason"] = stop_reason_json(state->summary);
      if (ask_.return_token_ids) {
        Json ids = Json::array();
        for (const TokenEvent& event : state->tokens) ids.push_back(event.id);
        choice["token_ids"] = ids;
      }
      list.push_back(choice);
    }
    Json made = {{"id", id_},
                 {"object", "chat.completion"},
                 {"created", context_.created},
                 {"model", context_.model.name},
                 {"system_fingerprint", context_.model.fingerprint},
                 {"service_tier", "default"},
                 {"choices", list},
                 {"usage", usage_json(usage)}};
    if (ask_.return_token_ids) made["prompt_token_ids"] = ask_.prompts[0];
    if (ask_.return_prompt_text) {
      auto text = context_.model.tokenizer->decode(ask_.prompts[0]);
      made["prompt_text"] = text.ok() ? *text : "";
    }
    if (ask_.prompt_logprobs >= 0) made["prompt_logprobs"] = prompt_logprobs(*choices[0]);
    return made;
  }

 private:
  const char* finish_of(const ChoiceState& state) const {
    const char* reason = state.finish_reason();
    return ask_.legacy_functions && state.summary.finish == FinishReason::kToolCalls ? "function_call" : reason;
  }

  // With the first thing that is said, not before: a load tool takes the first chunk for the first token.
  void role(const ChoiceState& state, const UsageCount& usage, std::string& out) {
    if (state.index >= static_cast<int>(began_.size())) began_.resize(state.index + 1);
    if (began_[state.index]) return;
    began_[state.index] = true;
    chunk(state.index, R"({"role":"assistant","content":""})", "null", "null", usage, out);
  }

  void text_chunk(const ChoiceState& state, const char* member, const Piece& piece, const UsageCount& usage,
                  std::string& out) {
    std::string delta = "{\"";
    delta += member;
    delta += "\":";
    append_quoted(piece.text, delta);
    if (context_.reasoning_alias && piece.kind == OutputEvent::kReasoning) {
      delta += ",\"reasoning\":";
      append_quoted(piece.text, delta);
    }
    delta += '}';
    std::string logprobs = "null";
    if (ask_.logprobs) {
      static const std::vector<uint32_t> kNone;
      const bool reasoning = piece.kind == OutputEvent::kReasoning;
      logprobs = compact(logprobs_json(state, reasoning ? piece.tokens : kNone, reasoning ? kNone : piece.tokens));
    }
    chunk(state.index, delta, logprobs, "null", usage, out);
  }

  void chunk(int index, std::string_view delta, std::string_view logprobs, std::string_view finish,
             const UsageCount& usage, std::string& out) {
    out += "data: ";
    out += head_;
    out += "{\"index\":";
    out += std::to_string(index);
    out += ",\"delta\":";
    out += delta;
    out += ",\"logprobs\":";
    out += logprobs;
    out += ",\"finish_reason\":";
    out += finish;
    out += "}]";
    if (ask_.include_usage) {
      out += ",\"usage\":";
      out += ask_.continuous_usage ? compact(usage_json(usage)) : "null";
    }
    out += "}\n\n";
  }

  Json entry(TokenId id, float logprob) const {
    Json bytes = Json::array();
    for (const unsigned char b : context_.model.tokenizer->bytes_of(id)) bytes.push_back(b);
    return {{"token", token_text(ask_, *context_.model.tokenizer, id)},
            {"logprob", finite_logprob(logprob)},
            {"bytes", bytes}};
  }

  Json entries(const ChoiceState& state, const std::vector<uint32_t>& at) const {
    Json list = Json::array();
    for (const uint32_t i : at) {
      if (i >= state.tokens.size()) continue;
      const TokenEvent& event = state.tokens[i];
      Json item = entry(event.id, event.logprob);
      item["top_logprobs"] = Json::array();
      const size_t wanted = static_cast<size_t>(std::max(0, ask_.sampling.top_logprobs));
      for (size_t k = 0; k < event.top_logprobs.size() && k < wanted; ++k) {
        item["top_logprobs"].push_back(entry(event.top_logprobs[k].id, event.top_logprobs[k].logprob));
      }
      list.push_back(item);
    }
    return list;
  }

  Json logprobs_json(const ChoiceState& state, const std::vector<uint32_t>& reasoning,
                     const std::vector<uint32_t>& content) const {
    Json made = {{"content", entries(state, content)}, {"refusal", nullptr}};
    if (!reasoning.empty()) made["reasoning_content"] = entries(state, reasoning);
    return made;
  }

  Json prompt_logprobs(const ChoiceState& state) const {
    Json list = Json::array({nullptr});
    const std::vector<TokenId>& prompt = ask_.prompts[state.prompt];
    for (size_t i = 0; i < state.scores.size() && i + 1 < prompt.size(); ++i) {
      Json position = Json::object();
      int rank = 1;
      for (const Logprob& top : state.scores[i].top_logprobs) {
        position[std::to_string(top.id)] = {{"logprob", finite_logprob(top.logprob)},
                                            {"rank", rank++},
                                            {"decoded_token", token_text(ask_, *context_.model.tokenizer, top.id)}};
      }
      const std::string own = std::to_string(prompt[i + 1]);
      if (!position.contains(own)) {
        position[own] = {{"logprob", finite_logprob(state.scores[i].logprob)},
                         {"rank", nullptr},
                         {"decoded_token", token_text(ask_, *context_.model.tokenizer, prompt[i + 1])}};
      }
      list.push_back(position);
    }
    return list;
  }

  const Ask& ask_;
  ReplyContext context_;
  std::string id_, head_;
  std::vector<bool> began_;
};

}  // namespace

std::unique_ptr<ReplyWriter> chat_writer(const Ask& ask, const ReplyContext& context) {
  return std::make_unique<ChatWriter>(ask, context);
}

}  // namespace nautile::serve
