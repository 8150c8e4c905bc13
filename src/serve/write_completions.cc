// Legacy completions: text, the old shape of logprobs, echo (spec api.md 8).
#include <algorithm>

#include "serve/http.h"
#include "serve/reply.h"
#include "serve/sse.h"
#include "text/utf8.h"

namespace nautile::serve {
namespace {

size_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

class CompletionsWriter final : public ReplyWriter {
 public:
  CompletionsWriter(const Ask& ask, const ReplyContext& context)
      : ask_(ask), context_(context), tokenizer_(*context.model.tokenizer), id_("cmpl-" + http::random_hex(16)) {
    head_ = R"({"id":")" + id_ + R"(","object":"text_completion","created":)" + std::to_string(context.created) +
            R"(,"model":)";
    append_quoted(context.model.name, head_);
    head_ += R"(,"choices":[)";
  }

  std::string id() const override { return id_; }
  void start(std::string&) override {}

  void piece(const ChoiceState& state, const Piece& piece, const UsageCount& usage, std::string& out) override {
    echo(state, usage, out);
    std::string logprobs = "null";
    if (ask_.logprobs) logprobs = more_logprobs(state, piece.tokens);
    chunk(state.index, piece.text, logprobs, "null", usage, out);
  }

  void end_choice(const ChoiceState& state, const UsageCount& usage, std::string& out) override {
    echo(state, usage, out);
    const bool silent = ask_.logprobs && progress(state.index).listed < state.tokens.size();
    chunk(state.index, "", silent ? more_logprobs(state, {}, true) : "null",
          '"' + std::string(state.finish_reason()) + '"', usage, out);
  }

  void finish(const std::vector<const ChoiceState*>&, const UsageCount& usage, std::string& out) override {
    if (ask_.include_usage) append_data(head_ + "],\"usage\":" + compact(usage_json(usage)) + "}", out);
    append_data("[DONE]", out);
  }

  void fail(const ApiError& error, std::string& out) override {
    append_data(compact(error_body(error, Dialect::kCompletions, context_.request_id)), out);
    append_data("[DONE]", out);
  }

  std::string keep_alive() override { return ": keep-alive\n\n"; }

  Json body(const std::vector<const ChoiceState*>& choices, const UsageCount& usage) override {
    Json list = Json::array();
    for (const ChoiceState* state : choices) {
      const std::string prompt = ask_.echo ? ask_.prompt_texts[state->prompt] : "";
      Json choice = {{"index", state->index}, {"text", prompt + state->content}, {"logprobs", nullptr}};
      if (ask_.logprobs) choice["logprobs"] = logprobs(*state);
      choice["finish_reason"] = state->finish_reason();
      choice["stop_reason"] = stop_reason_json(state->summary);
      if (ask_.prompt_logprobs >= 0 && !ask_.echo) choice["prompt_logprobs"] = prompt_logprobs(*state);
      if (ask_.return_token_ids) {
        Json ids = Json::array();
        for (const TokenEvent& event : state->tokens) ids.push_back(event.id);
        choice["token_ids"] = ids;
        choice["prompt_token_ids"] = ask_.prompts[state->prompt];
      }
      list.push_back(choice);
    }
    return {{"id", id_},
            {"object", "text_completion"},
            {"created", context_.created},
            {"model", context_.model.name},
            {"system_fingerprint", context_.model.fingerprint},
            {"choices", list},
            {"usage", usage_json(usage)}};
  }

 private:
  // The old shape, built token by token. Offsets count code points.
  struct Legacy {
    Legacy(const CompletionsWriter& writer, size_t offset) : w(writer), next_offset(offset) {}
    void add(TokenId id, const float* logprob, const std::vector<Logprob>& top, bool shown = true) {
      const std::string text = token_text(w.ask_, w.tokenizer_, id);
      tokens.push_back(shown ? text : "");
      offsets.push_back(next_offset);
      // Bytes that only begin a code point elsewhere count where the code point begins.
      if (shown) next_offset += code_points(w.tokenizer_.bytes_of(id));
      if (logprob == nullptr) {
        token_logprobs.push_back(nullptr);
        tops.push_back(nullptr);
        return;
      }
      token_logprobs.push_back(finite_logprob(*logprob));
      Json map = Json::object();
      const size_t wanted = static_cast<size_t>(std::max(0, w.ask_.sampling.top_logprobs));
      for (size_t k = 0; k < top.size() && k < wanted; ++k) {  // descending: of equal texts the better one stays
        const std::string other = token_text(w.ask_, w.tokenizer_, top[k].id);
        if (!map.contains(other)) map[other] = finite_logprob(top[k].logprob);
      }
      if (!map.contains(text)) map[text] = finite_logprob(*logprob);
      tops.push_back(map);
    }
    // The sampled tokens from `from` up to and with those at `shown`, and with `all` whatever follows. Each sampled
    // token has an entry; one without text of its own (the end of the turn, what a stop string cut off) has an empty
    // one.
    size_t add_sampled(const ChoiceState& state, size_t from, const std::vector<uint32_t>& shown, bool all) {
      auto one = [&](size_t i, bool has_text) {
        add(state.tokens[i].id, &state.tokens[i].logprob, state.tokens[i].top_logprobs, has_text);
      };
      for (const uint32_t i : shown) {
        if (i >= state.tokens.size()) continue;
        for (; from < i; ++from) one(from, false);
        one(i, true);
        from = std::max<size_t>(from, i + 1);
      }
      for (; all && from < state.tokens.size(); ++from) one(from, false);
      return from;
    }
    Json json() const {
      return {{"tokens", tokens}, {"token_logprobs", token_logprobs}, {"top_logprobs", tops}, {"text_offset", offsets}};
    }
    const CompletionsWriter& w;
    Json tokens = Json::array(), token_logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
    size_t next_offset;
  };

  Json logprobs(const ChoiceState& state) const {
    Legacy made(*this, 0);
    if (ask_.echo) {
      const std::vector<TokenId>& prompt = ask_.prompts[state.prompt];
      // BOS that was put in front is not part of the text.
      for (size_t i = 0; i < prompt.size(); ++i) {
        if (i == 0) {
          const size_t before = made.next_offset;
          made.add(prompt[0], nullptr, {});
          if (prompt[0] == context_.model.tokens.bos && !ask_.prompt_texts[state.prompt].starts_with("<｜begin")) {
            made.next_offset = before;
          }
          continue;
        }
        if (i - 1 < state.scores.size())
          made.add(prompt[i], &state.scores[i - 1].logprob, state.scores[i - 1].top_logprobs);
      }
    }
    made.add_sampled(state, 0, state.content_at, true);
    return made.json();
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
                                            {"decoded_token", token_text(ask_, tokenizer_, top.id)}};
      }
      const std::string own = std::to_string(prompt[i + 1]);
      if (!position.contains(own)) {
        position[own] = {{"logprob", finite_logprob(state.scores[i].logprob)},
                         {"rank", nullptr},
                         {"decoded_token", token_text(ask_, tokenizer_, prompt[i + 1])}};
      }
      list.push_back(position);
    }
    return list;
  }

  void echo(const ChoiceState& state, const UsageCount& usage, std::string& out) {
    if (!ask_.echo) return;
    if (state.index >= static_cast<int>(echoed_.size())) echoed_.resize(state.index + 1);
    if (echoed_[state.index]) return;
    echoed_[state.index] = true;
    const std::string& prompt = ask_.prompt_texts[state.prompt];
    if (!prompt.empty()) chunk(state.index, prompt, "null", "null", usage, out);
    progress(state.index).offset = code_points(prompt);
  }

  // How far the scores of a stream have come.
  struct Progress {
    size_t offset = 0;  // in the text
    size_t listed = 0;  // sampled tokens
  };
  Progress& progress(int index) {
    if (index >= static_cast<int>(progress_.size())) progress_.resize(index + 1);
    return progress_[index];
  }
  std::string more_logprobs(const ChoiceState& state, const std::vector<uint32_t>& shown, bool all = false) {
    Progress& at = progress(state.index);
    Legacy made(*this, at.offset);
    at.listed = made.add_sampled(state, at.listed, shown, all);
    at.offset = made.next_offset;
    return compact(made.json());
  }

  void chunk(int index, std::string_view text, std::string_view logprobs, std::string_view finish,
             const UsageCount& usage, std::string& out) {
    out += "data: ";
    out += head_;
    out += "{\"index\":";
    out += std::to_string(index);
    out += ",\"text\":";
    append_quoted(text, out);
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

  const Ask& ask_;
  ReplyContext context_;
  const Tokenizer& tokenizer_;
  std::string id_, head_;
  std::vector<bool> echoed_;
  std::vector<Progress> progress_;
};

}  // namespace

std::unique_ptr<ReplyWriter> completions_writer(const Ask& ask, const ReplyContext& context) {
  return std::make_unique<CompletionsWriter>(ask, context);
}

}  // namespace nautile::serve
