// nautile run: one prompt, or one request in OpenAI's form, or many of them; the answer on stdout.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <iterator>

#include "model_flags.h"
#include "text/conversation.h"

namespace nautile {
namespace {

constexpr size_t kMaxRequestBytes = 64u << 20;
volatile std::sig_atomic_t g_interrupted = 0;

struct RunFlags {
  ModelFlags model;
  ReplyFlags reply;
  std::string prompt, file, messages, jsonl, system;
  bool json = false, show_reasoning = false;
};

Result<std::string> read_text(FileSystem& files, const std::string& path) {
  if (path != "-") return files.read(path, kMaxRequestBytes);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

Json reply_json(const Reply& reply, const ReplyOptions& options) {
  Json calls = Json::array();
  for (size_t i = 0; i < reply.message.calls.size(); ++i) {
    const ParsedCall& call = reply.message.calls[i];
    calls.push_back({{"id", fmt::format("call_{}", i)},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  Json json = {{"content", reply.message.content}, {"reasoning_content", reply.message.reasoning}};
  if (!calls.empty()) json["tool_calls"] = calls;
  const char* reasons[] = {"stop", "length", "tool_calls"};
  json["finish_reason"] = reply.cancelled ? "cancelled" : reasons[static_cast<int>(reply.message.finish)];
  json["usage"] = {{"prompt_tokens", reply.prompt_tokens},
                   {"cached_tokens", reply.cached_tokens},
                   {"completion_tokens", reply.output_tokens},
                   {"reasoning_tokens", reply.reasoning_tokens}};
  json["seconds"] = {{"prefill", reply.prefill_seconds}, {"decode", reply.decode_seconds}};
  json["seed"] = options.sampling.seed;
  return json;
}

// Writes the answer to stdout as it comes; reasoning goes dimmed to stderr where a person would see it.
class Printer {
 public:
  Printer(bool quiet, bool show_reasoning)
      : quiet_(quiet), reasoning_(!quiet && (show_reasoning || isatty(STDERR_FILENO))) {}

  void event(const OutputEvent& event) {
    if (quiet_) return;
    switch (event.kind) {
      case OutputEvent::kReasoning:
        if (reasoning_) {
          const bool colour = isatty(STDERR_FILENO);
          fmt::print(stderr, "{}{}{}", colour ? "\033[2m" : "", event.text, colour ? "\033[0m" : "");
          thought_ = true;
        }
        return;
      case OutputEvent::kToolStart:
        answer(fmt::format("{}[calls {} ", wrote_ ? "\n" : "", event.text));
        return;
      case OutputEvent::kToolEnd:
        answer("]");
        return;
      default:
        answer(event.text);
    }
  }
  void finish() {
    if (!quiet_) fmt::print("\n");
  }

 private:
  void answer(const std::string& text) {
    if (thought_) fmt::print(stderr, "\n\n");
    thought_ = false;
    wrote_ = true;
    fmt::print("{}", text);
    std::fflush(stdout);
  }
  bool quiet_, reasoning_, thought_ = false, wrote_ = false;
};

Status answer(ChatSession& session, const Conversation& conversation, const ReplyOptions& options,
              const RunFlags& flags, bool json) {
  Printer printer(json, flags.show_reasoning);
  PrefillBar bar;
  ReplyHooks hooks;
  hooks.event = [&](const OutputEvent& event) { printer.event(event); };
  hooks.prefill = [&](int64_t done, int64_t total) { bar.show(done, total); };
  hooks.cancelled = [] { return g_interrupted != 0; };
  NAUTILE_ASSIGN(const Reply reply, session.reply(conversation, options, hooks));
  bar.clear();
  if (json) {
    fmt::print("{}\n", reply_json(reply, options).dump());
    std::fflush(stdout);
  } else {
    printer.finish();
    if (isatty(STDERR_FILENO)) fmt::print(stderr, "\033[2m{}\033[0m\n", rates_line(reply));
  }
  if (reply.cancelled) return {Code::kCancelled, "stopped before the answer was complete"};
  return {};
}

// A request may choose its own mode.
Status answer_request(ChatSession& session, const std::string& text, const std::string& where, ReplyOptions options,
                      const RunFlags& flags, bool json) {
  NAUTILE_ASSIGN(const Json request, parse_json(text, where));
  for (const char* key : {"mode", "reasoning_mode"}) {
    if (!request.is_object() || !request.contains(key)) continue;
    NAUTILE_ASSIGN(const std::string name, json_string(request, key, where));
    NAUTILE_ASSIGN(options.encode.mode, parse_mode(name));
  }
  auto conversation = parse_conversation(request);
  if (!conversation.ok()) return conversation.status().at(where);
  return answer(session, *conversation, options, flags, json);
}

Status run_all(const RunFlags& flags) {
  const int inputs = !flags.prompt.empty() + !flags.file.empty() + !flags.messages.empty() + !flags.jsonl.empty();
  if (inputs != 1) {
    return {Code::kInvalidArgument,
            inputs == 0 ? "there is nothing to answer" : "there is more than one input",
            {},
            "give one of --prompt, --file, --messages or --messages-jsonl"};
  }
  const std::unique_ptr<FileSystem> files = real_files();
  ModelFlags model_flags = flags.model;
  NAUTILE_ASSIGN(const std::unique_ptr<LoadedModel> model, model_flags.load(*files));
  NAUTILE_ASSIGN(const ReplyOptions options, flags.reply.resolve(*model));
  NAUTILE_ASSIGN(const std::unique_ptr<LocalEngine> engine, start_engine(*model, one_reply_at_a_time()));
  ChatSession session(*model, *engine);

  if (!flags.messages.empty()) {
    NAUTILE_ASSIGN(const std::string text, read_text(*files, flags.messages));
    return answer_request(session, text, flags.messages, options, flags, flags.json);
  }
  if (!flags.jsonl.empty()) {
    NAUTILE_ASSIGN(const std::string text, read_text(*files, flags.jsonl));
    size_t number = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      ++number;
      begin = end + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      NAUTILE_RETURN_IF_ERROR(
          answer_request(session, line, fmt::format("{}, line {}", flags.jsonl, number), options, flags, true));
    }
    return {};
  }
  Message user;
  user.content = flags.prompt;
  if (!flags.file.empty()) {
    NAUTILE_ASSIGN(user.content, read_text(*files, flags.file));
  }
  Conversation conversation;
  if (!flags.system.empty()) {
    Message system;
    system.role = Role::kSystem;
    system.content = flags.system;
    conversation.messages.push_back(system);
  }
  conversation.messages.push_back(user);
  return answer(session, conversation, options, flags, flags.json);
}

}  // namespace

void add_run(CLI::App& app, Run& run) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* verb = app.add_subcommand("run",
                                      "Answers one prompt and exits.\n"
                                      "  nautile run --prompt \"What is 48 + 75?\"\n"
                                      "  nautile run /models/DeepSeek-V4-Flash --think max --file question.txt\n"
                                      "  nautile run --messages request.json --json");
  flags->model.add(*verb);
  verb->add_option("--prompt,-p", flags->prompt, "what the user says");
  verb->add_option("--file,-f", flags->file, "the same from a file; - is standard input");
  verb->add_option("--messages", flags->messages,
                   "a file with one JSON object: messages, tools, response_format as in OpenAI's API");
  verb->add_option("--messages-jsonl", flags->jsonl, "many of them, one a line; prints one JSON object a line");
  verb->add_option("--system", flags->system, "system text, with --prompt or --file");
  verb->add_flag("--json", flags->json, "print one JSON object instead of the answer");
  verb->add_flag("--show-reasoning", flags->show_reasoning, "reasoning on stderr even when that is no terminal");
  flags->reply.add(*verb);
  verb->callback([flags, &run] {
    run = [flags] {
      std::signal(SIGINT, [](int) { g_interrupted = 1; });
      const Status status = run_all(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
