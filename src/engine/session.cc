// The public Model and Session over the rooms' own types.
#include "nautile/session.h"

#include "engine/chat_session.h"
#include "engine/engine.h"

namespace nautile {

struct Model::Parts {
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<LocalEngine> engine;  // goes first
};

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::open(const std::string& directory, const ModelOptions& options) {
  const std::unique_ptr<FileSystem> files = real_files();
  auto parts = std::make_unique<Parts>();
  LoadOptions load;
  load.isa = options.isa;
  load.threads = options.threads;
  NAUTILE_ASSIGN(load.numerics, parse_numerics(options.numerics));
  NAUTILE_ASSIGN(parts->model, LoadedModel::load(*files, directory, load));
  EngineOptions engine;
  engine.max_sequences = options.max_sequences;
  engine.state_bytes = options.state_bytes;
  engine.cache_bytes = options.cache_bytes;
  engine.disk_directory = options.disk_directory;
  engine.disk_bytes = options.disk_bytes;
  engine.speculation = options.speculation ? Speculation::kAuto : Speculation::kOff;
  engine.warn = options.warn;
  NAUTILE_ASSIGN(parts->engine, start_engine(*parts->model, engine));
  return std::unique_ptr<Model>(new Model(std::move(parts)));
}

Engine& Model::engine() {
  return *parts_->engine;
}
int64_t Model::context_tokens() const {
  return parts_->engine->stats().context_tokens;
}
size_t Model::vocabulary() const {
  return parts_->model->tokenizer().size();
}
Result<std::vector<TokenId>> Model::encode(std::string_view text, bool specials) const {
  return parts_->model->tokenizer().encode(text, specials);
}
Result<std::string> Model::decode(std::span<const TokenId> ids) const {
  return parts_->model->tokenizer().decode(ids);
}

struct Session::State {
  Model& model;
  ChatSession chat;
  Conversation conversation;
};

Session::Session(Model& model, const std::string& system)
    : state_(std::make_unique<State>(State{model, ChatSession(*model.parts_->model, *model.parts_->engine), {}})) {
  if (system.empty()) return;
  Message message;
  message.role = Role::kSystem;
  message.content = system;
  state_->conversation.messages.push_back(std::move(message));
}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

Result<Answer> Session::ask(const std::string& text, const AskOptions& options,
                            const std::function<bool(std::string_view piece, bool reasoning)>& on_text) {
  const LoadedModel& model = *state_->model.parts_->model;
  ReplyOptions reply_options;
  reply_options.encode.mode = options.thinking == Thinking::kNone   ? ReasoningMode::kNonThink
                              : options.thinking == Thinking::kLow  ? ReasoningMode::kThinkLow
                              : options.thinking == Thinking::kHigh ? ReasoningMode::kThinkHigh
                                                                    : ReasoningMode::kThinkMax;
  reply_options.encode.profile = model.official_encoding() ? EncodingProfile::kOfficial : EncodingProfile::kPreview;
  reply_options.sampling = options.sampling;
  reply_options.max_tokens = options.max_tokens;
  reply_options.stop = options.stop;
  bool wanted = true;
  ReplyHooks hooks;
  hooks.cancelled = [&] { return !wanted; };
  if (on_text) {
    hooks.event = [&](const OutputEvent& event) {
      if (event.kind != OutputEvent::kContent && event.kind != OutputEvent::kReasoning) return;
      if (wanted) wanted = on_text(event.text, event.kind == OutputEvent::kReasoning);
    };
  }
  std::vector<Message>& messages = state_->conversation.messages;
  Message user;
  user.content = text;
  messages.push_back(std::move(user));
  auto reply = state_->chat.reply(state_->conversation, reply_options, hooks);
  if (!reply.ok()) {
    messages.pop_back();
    return reply.status();
  }
  Message assistant;
  assistant.role = Role::kAssistant;
  assistant.content = reply->message.content;
  assistant.reasoning_content = reply->message.reasoning;
  messages.push_back(std::move(assistant));
  Answer answer;
  answer.reasoning = std::move(reply->message.reasoning);
  answer.content = std::move(reply->message.content);
  answer.complete = !reply->cancelled && reply->message.finish != FinishReason::kLength;
  answer.record = std::move(reply->record);
  return answer;
}

}  // namespace nautile
