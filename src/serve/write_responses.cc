// Responses, whole and as events (spec api.md 12.2, 12.3).
#include <algorithm>
#include <ctime>

#include "serve/http.h"
#include "serve/reply.h"
#include "serve/sse.h"

namespace nautile::serve {
namespace {

class ResponsesWriter final : public ReplyWriter {
 public:
  ResponsesWriter(const Ask& ask, const ReplyContext& context)
      : ask_(ask), context_(context), id_("resp_" + http::random_hex(16)), handle_("nautile-" + http::random_hex(16)) {}

  std::string id() const override { return id_; }
  std::string reasoning_handle() const override { return handle_; }

  void start(std::string& out) override {
    event("response.created", {{"response", response("in_progress", Json(nullptr))}}, out);
    event("response.in_progress", {{"response", response("in_progress", Json(nullptr))}}, out);
  }

  void piece(const ChoiceState& state, const Piece& piece, const UsageCount&, std::string& out) override {
    switch (piece.kind) {
      case OutputEvent::kReasoning:
        if (kind_ != Kind::kReasoning) {
          close(state, "completed", out);
          open_reasoning(out);
        }
        delta(summary() ? "response.reasoning_summary_text.delta" : "response.reasoning_text.delta",
              summary() ? "summary_index" : "content_index", piece.text, "", out);
        text_ += piece.text;
        break;
      case OutputEvent::kContent: {
        if (kind_ != Kind::kMessage) {
          close(state, "completed", out);
          open_message(out);
        }
        std::string more = ",\"logprobs\":";
        more += ask_.logprobs ? compact(logprobs(state, piece.tokens)) : "[]";
        delta("response.output_text.delta", "content_index", piece.text, more, out);
        text_ += piece.text;
        tokens_.insert(tokens_.end(), piece.tokens.begin(), piece.tokens.end());
        break;
      }
      case OutputEvent::kToolStart:
        close(state, "completed", out);
        open_call(state.calls[piece.call], out);
        break;
      case OutputEvent::kToolArguments:
        text_ += piece.text;
        if (kind_ == Kind::kCall) delta("response.function_call_arguments.delta", "", piece.text, "", out);
        break;
      case OutputEvent::kToolEnd:
        close(state, "completed", out);
        break;
    }
  }

  void end_choice(const ChoiceState& state, const UsageCount&, std::string& out) override {
    const bool cut = state.summary.finish == FinishReason::kLength;
    close(state, cut ? "incomplete" : "completed", out);
  }

  void finish(const std::vector<const ChoiceState*>& choices, const UsageCount& usage, std::string& out) override {
    const bool cut = choices[0]->summary.finish == FinishReason::kLength;
    const char* status = cut ? "incomplete" : "completed";
    const Json made = response(status, usage_of(usage));
    if (ask_.store) kept_ = made;
    event(cut ? "response.incomplete" : "response.completed", {{"response", made}}, out);
    append_data("[DONE]", out);
  }

  void fail(const ApiError& error, std::string& out) override {
    const std::string code = error.code == "cancelled" ? "cancelled" : "server_error";
    event("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}}, out);
    Json made = response("failed", Json(nullptr));
    made["error"] = {{"code", code}, {"message", error.message}};
    event("response.failed", {{"response", made}}, out);
    append_data("[DONE]", out);
  }

  const Json* kept() const override { return kept_.is_null() ? nullptr : &kept_; }

  std::string keep_alive() override {
    std::string out;
    event("response.in_progress", {{"response", response("in_progress", Json(nullptr))}}, out);
    return out;
  }

  Json body(const std::vector<const ChoiceState*>& choices, const UsageCount& usage) override {
    // The same items in the same order as the stream would give.
    const ChoiceState& state = *choices[0];
    const bool cut = state.summary.finish == FinishReason::kLength;
    const char* last = cut ? "incomplete" : "completed";
    std::string ignored;
    if (!state.reasoning.empty() && ask_.include_reasoning) {
      open_reasoning(ignored);
      text_ = state.reasoning;
      close(state, state.content.empty() && state.calls.empty() ? last : "completed", ignored);
    }
    if (!state.content.empty()) {
      open_message(ignored);
      text_ = state.content;
      tokens_ = state.content_at;
      close(state, state.calls.empty() ? last : "completed", ignored);
    }
    for (const Call& call : state.calls) {
      open_call(call, ignored);
      text_ = call.arguments;
      close(state, call.complete ? "completed" : "incomplete", ignored);
    }
    Json made = response(last, usage_of(usage));
    if (ask_.store) kept_ = made;
    return made;
  }

 private:
  enum class Kind { kNone, kReasoning, kMessage, kCall, kCustom };
  bool summary() const { return ask_.reasoning_summary; }

  static Json usage_of(const UsageCount& u) {
    return {{"input_tokens", u.prompt},
            {"input_tokens_details", {{"cached_tokens", u.cached}, {"cache_write_tokens", 0}}},
            {"output_tokens", u.completion},
            {"output_tokens_details", {{"reasoning_tokens", u.reasoning}}},
            {"total_tokens", u.prompt + u.completion}};
  }

  Json response(const std::string& status, const Json& usage) const {
    const bool done = status == "completed" || status == "incomplete";
    Json made = {{"id", id_},
                 {"object", "response"},
                 {"created_at", context_.created},
                 {"completed_at", done ? Json(static_cast<int64_t>(std::time(nullptr))) : Json(nullptr)},
                 {"status", status},
                 {"incomplete_details", status == "incomplete" ? Json{{"reason", "max_output_tokens"}} : Json(nullptr)},
                 {"error", nullptr}};
    made["output"] = output_;
    made.update(ask_.echo_fields);
    made["usage"] = usage;
    return made;
  }

  Json logprobs(const ChoiceState& state, const std::vector<uint32_t>& at) const {
    Json list = Json::array();
    auto entry = [&](TokenId id, float logprob) {
      Json bytes = Json::array();
      for (const unsigned char b : context_.model.tokenizer->bytes_of(id)) bytes.push_back(b);
      return Json{{"token", token_text(ask_, *context_.model.tokenizer, id)},
                  {"logprob", finite_logprob(logprob)},
                  {"bytes", bytes}};
    };
    for (const uint32_t i : at) {
      if (i >= state.tokens.size()) continue;
      const TokenEvent& event = state.tokens[i];
      Json item = entry(event.id, event.logprob);
      item["top_logprobs"] = Json::array();
      for (size_t k = 0;
           k < event.top_logprobs.size() && k < static_cast<size_t>(std::max(0, ask_.sampling.top_logprobs)); ++k) {
        item["top_logprobs"].push_back(entry(event.top_logprobs[k].id, event.top_logprobs[k].logprob));
      }
      list.push_back(item);
    }
    return list;
  }

  void event(const char* type, const Json& members, std::string& out) {
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(members);
    append_event(type, compact(json), out);
  }
  void item_event(const char* type, const Json& members, std::string& out) {
    Json json = {{"item_id", item_id_}, {"output_index", output_.size()}};
    json.update(members);
    event(type, json, out);
  }
  // The hot path.
  void delta(const char* type, const char* index, std::string_view text, std::string_view more, std::string& out) {
    out += "event: ";
    out += type;
    out += "\ndata: {\"type\":\"";
    out += type;
    out += "\",\"sequence_number\":";
    out += std::to_string(sequence_++);
    out += ",\"item_id\":\"" + item_id_ + "\",\"output_index\":" + std::to_string(output_.size());
    if (*index != '\0') {
      out += ",\"";
      out += index;
      out += "\":0";
    }
    out += ",\"delta\":";
    append_quoted(text, out);
    out += more;
    out += "}\n\n";
  }

  void open(Kind kind, const char* prefix, Json item, std::string& out) {
    kind_ = kind;
    text_.clear();
    tokens_.clear();
    item_id_ = prefix + http::random_hex(16);
    item_ = {{"id", item_id_}};
    item_.update(item);
    event("response.output_item.added", {{"output_index", output_.size()}, {"item", item_}}, out);
  }

  void open_reasoning(std::string& out) {
    open(Kind::kReasoning, "rs_",
         {{"type", "reasoning"},
          {"summary", Json::array()},
          {"content", Json::array()},
          {"encrypted_content", ask_.want_handle ? Json(handle_) : Json(nullptr)},
          {"status", "in_progress"}},
         out);
    if (summary()) {
      item_event("response.reasoning_summary_part.added",
                 {{"summary_index", 0}, {"part", {{"type", "summary_text"}, {"text", ""}}}}, out);
    } else {
      item_event("response.content_part.added",
                 {{"content_index", 0}, {"part", {{"type", "reasoning_text"}, {"text", ""}}}}, out);
    }
  }

  void open_message(std::string& out) {
    open(Kind::kMessage, "msg_",
         {{"type", "message"}, {"status", "in_progress"}, {"role", "assistant"}, {"content", Json::array()}}, out);
    item_event("response.content_part.added",
               {{"content_index", 0},
                {"part",
                 {{"type", "output_text"}, {"text", ""}, {"annotations", Json::array()}, {"logprobs", Json::array()}}}},
               out);
  }

  void open_call(const Call& call, std::string& out) {
    const bool custom =
        std::find(ask_.custom_tools.begin(), ask_.custom_tools.end(), call.name) != ask_.custom_tools.end();
    call_ = call;
    open(custom ? Kind::kCustom : Kind::kCall, custom ? "ctc_" : "fc_",
         {{"type", custom ? "custom_tool_call" : "function_call"},
          {"call_id", call.id},
          {"name", call.name},
          {custom ? "input" : "arguments", ""},
          {"status", "in_progress"}},
         out);
  }

  void close(const ChoiceState& state, const char* status, std::string& out) {
    switch (kind_) {
      case Kind::kNone:
        return;
      case Kind::kReasoning: {
        const Json part = {{"type", summary() ? "summary_text" : "reasoning_text"}, {"text", text_}};
        const char* index = summary() ? "summary_index" : "content_index";
        item_event(summary() ? "response.reasoning_summary_text.done" : "response.reasoning_text.done",
                   {{index, 0}, {"text", text_}}, out);
        item_event(summary() ? "response.reasoning_summary_part.done" : "response.content_part.done",
                   {{index, 0}, {"part", part}}, out);
        item_[summary() ? "summary" : "content"] = Json::array({part});
        break;
      }
      case Kind::kMessage: {
        const Json scores = ask_.logprobs ? logprobs(state, tokens_) : Json::array();
        const Json part = {
            {"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}, {"logprobs", scores}};
        item_event("response.output_text.done", {{"content_index", 0}, {"text", text_}, {"logprobs", scores}}, out);
        item_event("response.content_part.done", {{"content_index", 0}, {"part", part}}, out);
        item_["content"] = Json::array({part});
        break;
      }
      case Kind::kCall:
        item_["arguments"] = text_;
        item_event("response.function_call_arguments.done", {{"name", call_.name}, {"arguments", text_}}, out);
        break;
      case Kind::kCustom: {
        const auto arguments = parse_json(text_, "arguments");
        const bool whole = arguments.ok() && arguments.value().is_object() && arguments.value().contains("input") &&
                           arguments.value()["input"].is_string();
        const std::string input = whole ? arguments.value()["input"].get<std::string>() : text_;
        item_["input"] = input;
        delta("response.custom_tool_call_input.delta", "", input, "", out);
        item_event("response.custom_tool_call_input.done", {{"input", input}}, out);
        break;
      }
    }
    item_["status"] = status;
    event("response.output_item.done", {{"output_index", output_.size()}, {"item", item_}}, out);
    output_.push_back(item_);
    kind_ = Kind::kNone;
  }

  const Ask& ask_;
  ReplyContext context_;
  std::string id_, handle_;
  int64_t sequence_ = 0;
  Json output_ = Json::array();  // finished items
  Json kept_;
  Kind kind_ = Kind::kNone;  // of the item that is open
  Json item_;
  std::string item_id_, text_;
  std::vector<uint32_t> tokens_;
  Call call_;
};

}  // namespace

std::unique_ptr<ReplyWriter> responses_writer(const Ask& ask, const ReplyContext& context) {
  return std::make_unique<ResponsesWriter>(ask, context);
}

}  // namespace nautile::serve
