// nautile chat: a conversation in the terminal.
#include <fmt/format.h>
#include <readline/history.h>
#include <readline/readline.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>

#include "model_flags.h"

namespace nautile {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

constexpr const char* kHelp =
    "  /think non|low|high|max   how much to reason before answering\n"
    "  /system TEXT              instructions for the model, from now on; starts anew\n"
    "  /new                      forget the conversation\n"
    "  /help                     this list\n"
    "  /quit                     leave (or Ctrl-D)\n"
    "  Ctrl-C stops a reply. End a line with \\ to go on in the next.\n";

struct ChatFlags {
  ModelFlags model;
  ReplyFlags reply;
  std::string system;
};

// Lines from readline at a terminal, from standard input otherwise.
class LineReader {
 public:
  explicit LineReader(std::string history) : history_(std::move(history)), terminal_(isatty(STDIN_FILENO)) {
    if (!terminal_) return;
    rl_catch_signals = 0;
    // Called ten times a second while nothing is typed; readline looks at rl_done after it, not after a signal.
    rl_event_hook = [] {
      if (g_interrupted) {
        rl_replace_line("", 0);
        rl_done = 1;
      }
      return 0;
    };
    if (!history_.empty()) read_history(history_.c_str());
  }
  ~LineReader() {
    if (terminal_ && !history_.empty()) write_history(history_.c_str());
  }
  bool terminal() const { return terminal_; }

  // Nothing at the end of the input.
  std::optional<std::string> read(const char* prompt) {
    std::string line;
    if (!terminal_) {
      if (!std::getline(std::cin, line)) return std::nullopt;
      return line;
    }
    g_interrupted = 0;
    char* text = readline(prompt);
    if (text == nullptr) return std::nullopt;
    line = text;
    std::free(text);
    if (g_interrupted) {
      fmt::print("\n");
      g_interrupted = 0;
      return std::string();
    }
    if (!line.empty()) add_history(line.c_str());
    return line;
  }

 private:
  std::string history_;
  bool terminal_;
};

std::string history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state == nullptr && home == nullptr) return {};
  const std::filesystem::path dir = state != nullptr ? std::filesystem::path(state) / "nautile"
                                                     : std::filesystem::path(home) / ".local/state/nautile";
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  return error ? std::string() : (dir / "history").string();
}

class Chat {
 public:
  Chat(const LoadedModel& model, Engine& engine, ChatFlags flags, ReplyOptions options)
      : model_(model), session_(model, engine), options_(std::move(options)), colour_(isatty(STDOUT_FILENO)) {
    set_system(flags.system);
  }

  void banner() const {
    fmt::print("{}{}{}: {} layers, {} experts, context {}. Reasoning: {}. /help lists the commands.\n", dim(),
               model_.name(), plain(), model_.config().layers, model_.config().routed_experts,
               model_.config().max_positions, name_of(options_.encode.mode));
    if (model_.config().hidden < 1024) {
      fmt::print(
          "{}This is a test-size model: it shows that everything works and knows very little. Try \"What is 48 + "
          "75?\"\n{}",
          dim(), plain());
    }
  }

  // False when the person wants to leave.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space), rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (name == "/quit" || name == "/exit") return false;
    if (name == "/new") {
      set_system(system_);
      fmt::print("A new conversation.\n");
    } else if (name == "/system") {
      set_system(rest);
      fmt::print("{}\n", rest.empty() ? "No system text; a new conversation." : "Noted; a new conversation.");
    } else if (name == "/think") {
      auto mode = parse_mode(rest);
      if (mode.ok()) {
        options_.encode.mode = *mode;
        fmt::print("Reasoning: {}\n", name_of(*mode));
      } else {
        fmt::print("{}\n", mode.status().message());
      }
    } else {
      if (name != "/help") fmt::print("There is no command {}.\n", name);
      fmt::print("{}", kHelp);
    }
    return true;
  }

  void say(const std::string& text) {
    Message user;
    user.content = text;
    conversation_.messages.push_back(user);
    g_interrupted = 0;
    bool thinking = false;
    PrefillBar bar;
    ReplyHooks hooks;
    hooks.prefill = [&](int64_t done, int64_t total) { bar.show(done, total); };
    hooks.cancelled = [] { return g_interrupted != 0; };
    hooks.event = [&](const OutputEvent& event) {
      const bool reasoning = event.kind == OutputEvent::kReasoning;
      if (reasoning != thinking) fmt::print("{}", reasoning ? dim() : std::string(plain()) + "\n\n");
      thinking = reasoning;
      fmt::print("{}", event.text);
      std::fflush(stdout);
    };
    auto reply = session_.reply(conversation_, options_, hooks);
    bar.clear();
    fmt::print("{}\n", plain());
    if (!reply.ok()) {
      fmt::print("{}\n", reply.status().message());
      conversation_.messages.pop_back();  // so that the person can say it differently
      return;
    }
    ++options_.sampling.seed;  // the next reply draws anew, and the first seed still fixes them all
    Message assistant;
    assistant.role = Role::kAssistant;
    assistant.content = reply->message.content;
    assistant.reasoning_content = reply->message.reasoning;
    conversation_.messages.push_back(assistant);
    fmt::print("{}{}{}{}\n\n", dim(), rates_line(*reply), reply->cancelled ? ", stopped" : "", plain());
  }

 private:
  const char* dim() const { return colour_ ? "\033[2m" : ""; }
  const char* plain() const { return colour_ ? "\033[0m" : ""; }
  void set_system(const std::string& text) {
    system_ = text;
    conversation_ = {};
    if (text.empty()) return;
    Message system;
    system.role = Role::kSystem;
    system.content = text;
    conversation_.messages.push_back(system);
  }

  const LoadedModel& model_;
  ChatSession session_;
  ReplyOptions options_;
  Conversation conversation_;
  std::string system_;
  bool colour_;
};

Status chat(ChatFlags flags) {
  const std::unique_ptr<FileSystem> files = real_files();
  NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model, flags.model.load(*files));
  NAUTILE_ASSIGN(const ReplyOptions options, flags.reply.resolve(*model));
  NAUTILE_ASSIGN(const std::unique_ptr<LocalEngine> engine, start_engine(*model, one_reply_at_a_time()));
  Chat chat(*model, *engine, flags, options);
  LineReader reader(history_path());
  chat.banner();

  struct sigaction action = {};
  action.sa_handler = [](int) { g_interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  for (;;) {
    std::optional<std::string> line = reader.read("> ");
    while (line && line->ends_with('\\')) {
      line->back() = '\n';
      const std::optional<std::string> more = reader.read("… ");
      if (!more) break;
      *line += *more;
    }
    if (!line) break;
    if (line->find_first_not_of(" \t\n") == std::string::npos) continue;
    if (line->front() == '/' ? !chat.command(*line) : (chat.say(*line), false)) break;
  }
  if (reader.terminal()) fmt::print("\n");
  return {};
}

}  // namespace

void add_chat(CLI::App& app, Run& run) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* verb = app.add_subcommand("chat",
                                      "A conversation in the terminal.\n"
                                      "  nautile chat\n"
                                      "  nautile chat /models/DeepSeek-V4-Flash --think max");
  flags->model.add(*verb);
  verb->add_option("--system", flags->system, "instructions for the model");
  flags->reply.add(*verb);
  verb->callback([flags, &run] {
    run = [flags] {
      const Status status = chat(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
