// A conversation of many turns with tools, resent whole each time, as agents do: in memory, after eviction to disk,
// after a restart. What is computed again is bounded by one snapshot spacing.
#include <algorithm>

#include "base/json.h"
#include "engine/chat_session.h"
#include "engine_load.h"
#include "sys/clock.h"

namespace nautile::load {
namespace {

constexpr const char* kBase =
    R"({"messages":[{"role":"system","content":"You are a careful agent. Use the tools."},
    {"role":"user","content":"?"}],
    "tools":[{"type":"function","function":{"name":"get_weather","description":"Weather of a city",
    "parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]})";

struct Totals {
  int64_t prompt = 0, computed = 0, fresh = 0;
  double seconds = 0;
};

}  // namespace

void agent(const std::string& directory, int turns) {
  auto model = open(directory, 2);
  const Scratch scratch;
  EngineOptions options;
  options.state_bytes = 200u << 20;
  options.cache_bytes = 200u << 20;
  options.snapshot_spacing = 1024;
  options.disk_directory = scratch.path;
  options.disk_bytes = 1ull << 30;

  // Runs the conversation up to each turn; the replies of the first run are history in every run.
  std::vector<Message> history;
  auto play = [&](const char* name, auto before_each_turn) {
    auto engine = must(start_engine(*model, options), name);
    Totals totals;
    int64_t known = 0;  // tokens at the end of the last turn
    Conversation conversation = must(parse_conversation(must(parse_json(kBase, "conversation"), "parsing")), "reading");
    conversation.messages.pop_back();  // the parser wants someone to answer
    std::vector<Message> replies;
    for (int turn = 0; turn < turns; ++turn) {
      before_each_turn(engine);
      Message user;
      user.role = Role::kUser;
      user.content = fmt::format("Turn {}: what is {} + {}? Then tell me about {}.", turn, 100 + turn, 200 + 3 * turn,
                                 std::string(static_cast<size_t>(60 + 40 * (turn % 5)), 'x'));
      conversation.messages.push_back(user);
      ChatSession session(*model, *engine);
      ReplyOptions reply_options;
      reply_options.encode.mode = ReasoningMode::kThinkHigh;
      reply_options.sampling.seed = static_cast<uint64_t>(turn);
      reply_options.sampling.temperature = 0.7;
      reply_options.max_tokens = 120;
      const double begin = seconds_now();
      const Reply reply = must(session.reply(conversation, reply_options, {}), "reply");
      totals.seconds += seconds_now() - begin;
      const int64_t computed = reply.prompt_tokens - reply.cached_tokens;
      const int64_t fresh = std::max<int64_t>(0, reply.prompt_tokens - known);
      totals.prompt += reply.prompt_tokens;
      totals.computed += computed;
      totals.fresh += fresh;
      if (turn > 0) {
        check(computed <= fresh + options.snapshot_spacing,
              fmt::format("{}, turn {}: {} tokens computed for {} new ones", name, turn, computed, fresh));
      }
      known = reply.prompt_tokens + reply.output_tokens;
      Message assistant;
      assistant.role = Role::kAssistant;
      assistant.content = reply.message.content;
      assistant.reasoning_content = reply.message.reasoning;
      replies.push_back(assistant);
      if (static_cast<size_t>(turn) < history.size()) {
        check(assistant.content == history[static_cast<size_t>(turn)].content &&
                  assistant.reasoning_content == history[static_cast<size_t>(turn)].reasoning_content,
              fmt::format("{}, turn {}: another reply", name, turn));
      }
      conversation.messages.push_back(assistant);
    }
    history = replies;
    const EngineStats stats = engine->stats();
    fmt::print(
        "{:28} {} turns: {:6} prompt tokens, {:5} new, {:5} computed; {:.2f} s; cache {:.1f} MB, disk {:.1f} MB\n",
        name, turns, totals.prompt, totals.fresh, totals.computed, totals.seconds,
        static_cast<double>(stats.cache_bytes) / 1e6, static_cast<double>(stats.disk_bytes) / 1e6);
    return totals;
  };
  play("in memory", [](auto&) {});
  // A restart before every turn: everything comes from disk.
  play("restart before each turn", [&](std::unique_ptr<LocalEngine>& engine) {
    engine.reset();
    engine = must(start_engine(*model, options), "restart");
  });
  // A cache in memory that holds one conversation's snapshot at most: the others' traffic evicts it.
  options.cache_bytes = 3 * model->layout()->private_bytes() + 80 * model->layout()->block_bytes();
  std::mt19937 random(3);
  play("evicted before each turn", [&](std::unique_ptr<LocalEngine>& engine) {
    for (int i = 0; i < 6; ++i) {
      GenerateRequest request;
      request.prompt = random_tokens(*model, 1500, random);
      request.max_tokens = 1;
      auto generation = must(engine->submit(std::move(request)), "submit");
      std::vector<TokenEvent> events;
      while (generation->wait(events)) {
      }
    }
  });
}

}  // namespace nautile::load
