// Fields, reasoning modes and the four translations.
#include "serve/translate.h"

#include <doctest/doctest.h>

#include "serve/reasoning.h"
#include "sys/file.h"

using namespace nautile;
using namespace nautile::serve;

namespace {

struct World {
  std::unique_ptr<FileSystem> files = real_files();
  Tokenizer tokenizer = Tokenizer::load(*files, NAUTILE_SOURCE_DIR "/models/nano").value();
  ServedModel model;
  Limits limits;
  ReplayStore replay{1 << 20};
  GrammarCache grammars;
  TranslateContext context{model, limits, &replay, &grammars, "me"};
  World() {
    model.name = "m";
    model.names = {"alias"};
    model.legacy = {{"deepseek-chat", ReasoningMode::kNonThink}};
    model.tokenizer = &tokenizer;
    model.tokens = ChatTokens::find(tokenizer).value();
    const std::vector<TokenId> ends = {model.tokens.eos};
    model.trie = std::make_shared<const TokenTrie>(TokenTrie::build(tokenizer, ends));
    model.context = 4096;
  }
  Outcome<Ask> chat(const std::string& fields) {
    std::string body =
        R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) + "}";
    auto json = parse_body(body, 128);
    REQUIRE(json.ok());
    return translate_chat(*json, context);
  }
};

std::string body_error(std::string body) {
  auto parsed = parse_body(body, 8);
  return parsed.ok() ? "" : parsed.error().code;
}

}  // namespace

TEST_CASE("bodies: strict JSON, the last duplicate, half an emoji") {
  CHECK(body_error("{}") == "");
  CHECK(body_error("[]") == "invalid_json");
  CHECK(body_error("{\"a\":1,}") == "invalid_json");
  CHECK(body_error("{\"a\":[[[[[[[[[1]]]]]]]]]}") == "json_too_deep");
  std::string body = R"({"a":1,"a":"x\ud83d y\udc26 \ud83d\udc26 \\ud83d \u0000z"})";
  auto parsed = parse_body(body, 128);
  REQUIRE(parsed.ok());
  const std::string wanted = std::string("x\xEF\xBF\xBD y\xEF\xBF\xBD 🐦 \\ud83d ") + '\0' + "z";
  CHECK((*parsed)["a"] == wanted);
  CHECK(whole_number(Json(5.0)) == 5);
  CHECK_FALSE(whole_number(Json(5.5)));
  CHECK_FALSE(whole_number(Json(true)));
  CHECK_FALSE(whole_number(Json("5")));
  CHECK_FALSE(whole_number(Json(1e300)));
  CHECK_FALSE(whole_number(Json(UINT64_MAX)));
}

TEST_CASE("effort words by profile") {
  using enum ReasoningMode;
  const auto preview = EncodingProfile::kPreview, official = EncodingProfile::kOfficial;
  CHECK(effort_mode("low", preview, kNonThink) == kThinkHigh);
  CHECK(effort_mode("low", official, kNonThink) == kThinkLow);
  CHECK(effort_mode("xhigh", preview, kNonThink) == kThinkMax);
  CHECK(effort_mode("xhigh", official, kNonThink) == kThinkHigh);
  CHECK(effort_mode("auto", official, kThinkMax) == kThinkMax);
  CHECK_FALSE(effort_mode("hard", official, kThinkMax));
  CHECK(mode_of("think_max") == kThinkMax);
  CHECK_FALSE(mode_of("max"));
}

TEST_CASE("chat: fields arrive where they belong") {
  World w;
  auto ask =
      w.chat(R"("temperature":0.5,"top_k":3,"n":2,"stop":["a","b"],"seed":-1,"max_tokens":7,"logit_bias":{"5":-3},
    "stream":true,"stream_options":{"include_usage":true},"user":"u","wibble":{"x":1},"thinking":{"type":"disabled","odd":1})");
  REQUIRE(ask.ok());
  CHECK(ask->sampling.temperature == 0.5);
  CHECK(ask->sampling.top_k == 3);
  CHECK(ask->sampling.seed == UINT64_MAX);
  CHECK(ask->sampling.logit_bias.at(5) == -3);
  CHECK(ask->n == 2);
  CHECK(ask->stop.size() == 2);
  CHECK(ask->max_tokens == 7);
  CHECK(ask->include_usage);
  CHECK(ask->user == "u");
  CHECK(ask->encode.mode == ReasoningMode::kNonThink);
  CHECK(ask->ignored == std::vector<std::string>{"thinking.odd", "wibble"});
  REQUIRE_FALSE(prepare(*ask, w.context));
  CHECK(ask->prompts.size() == 1);
  CHECK(ask->effective_max_tokens == 7);
  CHECK(w.chat(R"("max_tokens":5,"max_completion_tokens":9)")->max_tokens == 9);
  CHECK(w.chat(R"("temperature":null,"top_p":0)")->sampling.top_p == 0);
  CHECK(w.chat(R"("model":"deepseek-chat")")->encode.mode == ReasoningMode::kNonThink);
  CHECK(w.chat(R"("nvext":{"top_k":9,"greed_sampling":true})")->sampling.temperature == 0);
  CHECK(w.chat(R"("top_k":4,"nvext":{"top_k":9})")->sampling.top_k == 4);
}

TEST_CASE("chat: faults name their field") {
  World w;
  const std::pair<const char*, const char*> faults[] = {{R"("n":0)", "n"},
                                                        {R"("temperature":2.1)", "temperature"},
                                                        {R"("reasoning":{"effort":"x"})", "reasoning.effort"},
                                                        {R"("stop":[""])", "stop"},
                                                        {R"("guided_regex":5)", "guided_regex"},
                                                        {R"("structured_outputs":{})", "structured_outputs"},
                                                        {R"("nvext":{"use_raw_prompt":true})", "nvext.use_raw_prompt"},
                                                        {R"("thinking_budget":-1)", "thinking_budget"}};
  for (const auto& [fields, param] : faults) {
    auto ask = w.chat(fields);
    REQUIRE_FALSE(ask.ok());
    CHECK(ask.error().status == 400);
    CHECK(ask.error().param == param);
  }
  CHECK(w.chat(R"("model":"nope")").error().status == 404);
  w.context.strict = true;
  CHECK(w.chat(R"("wibble":1)").error().code == "unknown_parameter");
}

TEST_CASE("a prompt without room is refused in the dialect's words") {
  World w;
  w.model.context = 8;
  auto ask = w.chat(R"("seed":1)");
  REQUIRE(ask.ok());
  auto error = prepare(*ask, w.context);
  CHECK_FALSE(error);
  ask->prompts.clear();
  ask->conversation.messages[0].content = std::string(400, 'x');
  error = prepare(*ask, w.context);
  REQUIRE(error);
  CHECK(error->code == "context_length_exceeded");
  CHECK(context_exceeded(Dialect::kMessages, 9, 8).message == "prompt is too long: 9 tokens > 8 maximum");
}

TEST_CASE("the three chat dialects make the same prompt of the same conversation") {
  World w;
  std::string openai = R"({"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},
    {"role":"assistant","content":"t","reasoning_content":"r","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
    {"role":"tool","tool_call_id":"c","content":"out"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]})";
  std::string anthropic = R"({"model":"m","max_tokens":9,"system":"S","messages":[{"role":"user","content":"q"},
    {"role":"assistant","content":[{"type":"thinking","thinking":"r","signature":""},{"type":"text","text":"t"},{"type":"tool_use","id":"c","name":"f","input":{"x":1}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"out"}]}],"tools":[{"name":"f","input_schema":{"type":"object"}}]})";
  std::string responses =
      R"({"model":"m","instructions":"S","input":[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"r"}]},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"t"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{\"x\":1}"},
    {"type":"function_call_output","call_id":"c","output":"out"}],"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]})";
  auto a = translate_chat(*parse_body(openai, 128), w.context);
  auto b = translate_messages(*parse_body(anthropic, 128), w.context, false);
  auto c = translate_responses(*parse_body(responses, 128), w.context);
  for (auto* ask : {&a, &b, &c}) {
    REQUIRE_MESSAGE(ask->ok(), ask->error().message);
    CHECK_FALSE(prepare(**ask, w.context));
    CHECK((*ask)->replay == "client");
  }
  CHECK(a->prompts == b->prompts);
  CHECK(a->prompts == c->prompts);
}

TEST_CASE("an empty answer is a turn in every dialect") {
  World w;
  std::string chat, messages, responses;
  auto a = translate_chat(*parse_body(chat = R"({"model":"m","messages":[{"role":"user","content":"q"},
    {"role":"assistant","content":""},{"role":"user","content":"r"}]})",
                                      128),
                          w.context);
  auto b = translate_messages(
      *parse_body(messages = R"({"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},
    {"role":"assistant","content":[{"type":"text","text":""}]},{"role":"user","content":"r"}]})",
                  128),
      w.context, false);
  auto c = translate_responses(*parse_body(responses = R"({"model":"m","input":[{"role":"user","content":"q"},
    {"role":"assistant","content":[{"type":"output_text","text":""}]},{"role":"user","content":"r"}]})",
                                           128),
                               w.context);
  for (auto* ask : {&a, &b, &c}) {
    REQUIRE(ask->ok());
    CHECK_FALSE(prepare(**ask, w.context));
    CHECK((*ask)->conversation.messages.size() == 3);
  }
  CHECK(a->prompts == b->prompts);
  CHECK(a->prompts == c->prompts);
}

TEST_CASE("a turn that was made here is its own tokens, unless the client changed it") {
  World w;
  // The same text in other tokens: byte by byte.
  GeneratedTurn made;
  made.thinking = true;
  std::vector<TokenId> single(256, -1);
  for (size_t id = 0; id < w.tokenizer.size(); ++id) {
    const std::string_view bytes = w.tokenizer.bytes_of(static_cast<TokenId>(id));
    if (bytes.size() == 1 && !w.tokenizer.is_added(static_cast<TokenId>(id)))
      single[static_cast<uint8_t>(bytes[0])] = static_cast<TokenId>(id);
  }
  auto spell = [&](std::string_view text) {
    for (const char c : text) {
      if (c == '|')
        made.tokens.push_back(w.model.tokens.dsml);
      else
        made.tokens.push_back(single[static_cast<uint8_t>(c)]);
    }
  };
  spell("think of it");
  made.tokens.push_back(w.model.tokens.think_close);
  spell(
      "\n\n<|tool_calls>\n<|invoke name=\"f\">\n<|parameter name=\"x\" "
      "string=\"false\">1e5</|parameter>\n</|invoke>\n</|tool_calls>");
  w.replay.keep("me", "call_9",
                {"think of it", "", {{"call_9", "f", {{"x", false, "1e5"}}}}, std::make_shared<GeneratedTurn>(made)});
  auto prompt = [&](const std::string& assistant, const std::string& fields = "") {
    std::string body = R"({"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant",)" + assistant +
                       R"(},{"role":"tool","content":"out"}],"tools":[{"type":"function","function":{"name":"f"}}])" +
                       fields + "}";
    auto ask = translate_chat(*parse_body(body, 128), w.context);
    REQUIRE_MESSAGE(ask.ok(), ask.error().message);
    CHECK_FALSE(prepare(*ask, w.context));
    const std::vector<TokenId>& ids = ask->prompts[0];
    const bool exact = std::search(ids.begin(), ids.end(), made.tokens.begin(), made.tokens.end()) != ids.end();
    return std::pair(exact, ask->replay);
  };
  const std::string call =
      R"("tool_calls":[{"id":"call_9","type":"function","function":{"name":"f","arguments":"{\"x\":100000}"}}])";
  CHECK(prompt(call) == std::pair(true, std::string("exact")));
  CHECK(prompt(R"("reasoning_content":"think of it",)" + call) == std::pair(true, std::string("client")));
  CHECK(prompt(R"("reasoning_content":"other",)" + call) == std::pair(false, std::string("client")));
  CHECK_FALSE(prompt(R"("content":"more",)" + call).first);
  CHECK_FALSE(prompt(call, R"(,"reasoning_mode":"non_think")").first);
  std::string changed = call;
  changed.replace(changed.find("100000"), 6, "100001");
  CHECK_FALSE(prompt(changed).first);
  w.context.owner = "somebody else";
  CHECK(prompt(call) == std::pair(false, std::string("missing")));
}

TEST_CASE("completions: prompts of every kind") {
  World w;
  auto ask = [&](std::string body) { return translate_completions(*parse_body(body, 128), w.context); };
  CHECK(ask(R"({"model":"m","prompt":"ab"})")->prompts[0][0] == w.model.tokens.bos);
  CHECK(ask(R"({"model":"m","prompt":[5,6]})")->prompts == std::vector<std::vector<TokenId>>{{5, 6}});
  CHECK(ask(R"({"model":"m","prompt":["a","b"],"n":2})")->prompts.size() == 2);
  CHECK(ask(R"({"model":"m","prompt":[[5],[6,7]]})")->prompts.size() == 2);
  CHECK(ask(R"({"model":"m","prompt":"a","echo":true,"max_tokens":0})")->max_tokens == 0);
  for (const char* bad : {R"({"model":"m"})", R"({"model":"m","prompt":[5,"a"]})", R"({"model":"m","prompt":[-1]})",
                          R"({"model":"m","prompt":{}})", R"({"model":"m","prompt":"a","thinking":true})"}) {
    CHECK_FALSE(ask(bad).ok());
  }
}

TEST_CASE("constraints compile, and say what is wrong with them") {
  World w;
  auto ask = w.chat(
      R"("response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"a":{"type":"integer"}}}}})");
  REQUIRE(ask.ok());
  CHECK_FALSE(constrain(*ask, w.context));
  CHECK(ask->grammar != nullptr);
  auto bad = w.chat(R"("guided_json":{"type":"hiccup"})");
  REQUIRE(bad.ok());
  const auto error = constrain(*bad, w.context);
  REQUIRE(error);
  CHECK(error->status == 400);
  CHECK(error->code == "invalid_schema");
  auto plain = w.chat("");
  CHECK_FALSE(constrain(*plain, w.context));
  CHECK(plain->grammar == nullptr);
}

TEST_CASE("allowed_tools: an undeclared name is a fault, in both spellings") {
  World w;
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}],)";
  auto chat = [&](const std::string& name) {
    return w.chat(tools + R"("tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[
      {"type":"function","function":{"name":")" +
                  name + R"("}}]}})");
  };
  REQUIRE(chat("b").ok());
  CHECK(chat("b")->allowed_tools == std::vector<std::string>{"b"});
  REQUIRE_FALSE(chat("c").ok());
  CHECK(chat("c").error().param == "tool_choice");
  auto responses = [&](const std::string& allowed) {
    std::string body = R"({"model":"m","input":"hi","tools":[{"type":"function","name":"a"}],
      "tool_choice":{"type":"allowed_tools","mode":"auto","tools":[)" +
                       allowed + "]}}";
    return translate_responses(*parse_body(body, 128), w.context);
  };
  CHECK(responses(R"({"type":"function","name":"a"})").ok());
  CHECK_FALSE(responses(R"({"type":"function","name":"c"})").ok());
  CHECK_FALSE(responses("").ok());
}

TEST_CASE("messages: threads are not held, output_format is honoured") {
  World w;
  auto messages = [&](const std::string& fields) {
    std::string body =
        R"({"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"hi"}],)" + fields + "}";
    return translate_messages(*parse_body(body, 128), w.context, false);
  };
  CHECK(messages(R"("thread":{"type":"create"})").ok());
  auto gone = messages(R"("thread":{"type":"continue","previous_message_id":"msg_1"})");
  REQUIRE_FALSE(gone.ok());
  CHECK(gone.error().status == 404);
  CHECK(error_body(gone.error(), Dialect::kMessages, "r")["error"]["details"]["error_code"] == "thread_not_found");
  for (const char* place : {R"("output_format":)", R"("output_config":{"format":)"}) {
    const std::string nested = std::string(place).find("config") == std::string::npos ? "" : "}";
    auto ask = messages(place + std::string(R"({"type":"json_schema","schema":{"type":"object"}})") + nested);
    REQUIRE(ask.ok());
    CHECK(ask->constraint.kind == Constraint::kJsonSchema);
    CHECK_FALSE(messages(place + std::string(R"({"type":"sound"})") + nested).ok());
  }
}
