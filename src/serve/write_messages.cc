// Anthropic Messages, whole and as events (spec api.md 13.2, 13.3).
#include "serve/http.h"
#include "serve/reply.h"
#include "serve/sse.h"

namespace nautile::serve {
namespace {

class MessagesWriter final : public ReplyWriter {
 public:
  MessagesWriter(const Ask& ask, const ReplyContext& context)
      : ask_(ask),
        context_(context),
        id_("msg_" + http::random_hex(16)),
        signature_("nautile-" + http::random_hex(16)) {}

  std::string id() const override { return id_; }
  std::string reasoning_handle() const override { return signature_; }

  void start(std::string& out) override {
    Json message = {{"id", id_},
                    {"type", "message"},
                    {"role", "assistant"},
                    {"model", context_.model.name},
                    {"content", Json::array()},
                    {"stop_reason", nullptr},
                    {"stop_sequence", nullptr},
                    {"usage",
                     {{"input_tokens", ask_.prompts[0].size()},
                      {"cache_creation_input_tokens", 0},
                      {"cache_read_input_tokens", 0},
                      {"output_tokens", 0}}}};
    event("message_start", {{"type", "message_start"}, {"message", message}}, out);
    out += keep_alive();
  }

  void piece(const ChoiceState& state, const Piece& piece, const UsageCount&, std::string& out) override {
    switch (piece.kind) {
      case OutputEvent::kReasoning:
        open(Block::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}, out);
        if (!ask_.omit_thinking) delta("thinking_delta", "thinking", piece.text, out);
        break;
      case OutputEvent::kContent:
        open(Block::kText, {{"type", "text"}, {"text", ""}}, out);
        delta("text_delta", "text", piece.text, out);
        break;
      case OutputEvent::kToolStart: {
        close(out);
        const Call& call = state.calls[piece.call];
        open(Block::kTool, {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", Json::object()}},
             out);
        break;
      }
      case OutputEvent::kToolArguments:
        delta("input_json_delta", "partial_json", piece.text, out);
        break;
      case OutputEvent::kToolEnd:
        close(out);
        break;
    }
  }

  void end_choice(const ChoiceState&, const UsageCount&, std::string& out) override {
    if (next_ == 0 && block_ == Block::kNone) open(Block::kText, {{"type", "text"}, {"text", ""}}, out);
    close(out);
  }

  void finish(const std::vector<const ChoiceState*>& choices, const UsageCount& usage, std::string& out) override {
    const auto [reason, sequence] = stop(*choices[0]);
    event("message_delta",
          {{"type", "message_delta"},
           {"delta", {{"stop_reason", reason}, {"stop_sequence", sequence}}},
           {"usage", usage_of(usage)}},
          out);
    event("message_stop", {{"type", "message_stop"}}, out);
  }

  void fail(const ApiError& error, std::string& out) override {
    append_event("error", compact(error_body(error, Dialect::kMessages, context_.request_id)), out);
  }

  // A comment would not reset the clients' watchdogs.
  std::string keep_alive() override { return "event: ping\ndata: {\"type\":\"ping\"}\n\n"; }

  Json body(const std::vector<const ChoiceState*>& choices, const UsageCount& usage) override {
    const ChoiceState& state = *choices[0];
    Json content = Json::array();
    if (!state.reasoning.empty() && ask_.include_reasoning) {
      content.push_back(
          {{"type", "thinking"}, {"thinking", ask_.omit_thinking ? "" : state.reasoning}, {"signature", signature_}});
    }
    if (!state.content.empty()) content.push_back({{"type", "text"}, {"text", state.content}});
    for (const Call& call : state.calls) {
      // A model may write a key of an object twice; the last one counts, as for every reader of JSON that takes it.
      JsonRules rules;
      rules.last_duplicate_wins = true;
      auto input = parse_json(call.arguments, "input", rules);
      if (!call.complete && (!input.ok() || !input->is_object())) continue;  // cut by the limit
      content.push_back({{"type", "tool_use"},
                         {"id", call.id},
                         {"name", call.name},
                         {"input", input.ok() && input->is_object() ? *input : Json::object()}});
    }
    if (content.empty()) content.push_back({{"type", "text"}, {"text", ""}});
    const auto [reason, sequence] = stop(state);
    return {{"id", id_},          {"type", "message"},     {"role", "assistant"},       {"model", context_.model.name},
            {"content", content}, {"stop_reason", reason}, {"stop_sequence", sequence}, {"usage", usage_of(usage)}};
  }

 private:
  enum class Block { kNone, kThinking, kText, kTool };

  static Json usage_of(const UsageCount& u) {
    return {{"input_tokens", u.prompt - u.cached},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", u.cached},
            {"output_tokens", u.completion},
            {"output_tokens_details", {{"thinking_tokens", u.reasoning}}}};
  }

  static std::pair<Json, Json> stop(const ChoiceState& state) {
    if (!state.summary.stop_string.empty()) return {"stop_sequence", state.summary.stop_string};
    switch (state.summary.finish) {
      case FinishReason::kLength:
        return {"max_tokens", nullptr};
      case FinishReason::kToolCalls:
        return {"tool_use", nullptr};
      case FinishReason::kStop:
        break;
    }
    return {"end_turn", nullptr};
  }

  void event(const char* name, const Json& json, std::string& out) { append_event(name, compact(json), out); }

  void open(Block block, const Json& start, std::string& out) {
    if (block_ == block) return;
    close(out);
    block_ = block;
    event("content_block_start", {{"type", "content_block_start"}, {"index", next_}, {"content_block", start}}, out);
  }

  void close(std::string& out) {
    if (block_ == Block::kNone) return;
    if (block_ == Block::kThinking) delta("signature_delta", "signature", signature_, out);
    event("content_block_stop", {{"type", "content_block_stop"}, {"index", next_}}, out);
    block_ = Block::kNone;
    ++next_;
  }

  void delta(const char* type, const char* member, std::string_view text, std::string& out) {
    out += "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
    out += std::to_string(next_);
    out += ",\"delta\":{\"type\":\"";
    out += type;
    out += "\",\"";
    out += member;
    out += "\":";
    append_quoted(text, out);
    out += "}}\n\n";
  }

  const Ask& ask_;
  ReplyContext context_;
  std::string id_, signature_;
  Block block_ = Block::kNone;
  int next_ = 0;  // index of the block that is open, or opens next
};

}  // namespace

std::unique_ptr<ReplyWriter> messages_writer(const Ask& ask, const ReplyContext& context) {
  return std::make_unique<MessagesWriter>(ask, context);
}

}  // namespace nautile::serve
