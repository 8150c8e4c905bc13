// When a stream is written: at once after a pause, in turns while tokens keep coming, and never later than the end.
// The engine, the loop's timers and the connection are moved by hand, so no clock decides what is seen.
#include "serve/job.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "serve/translate.h"
#include "sys/file.h"

using namespace nautile;
using namespace nautile::serve;

namespace {

struct HandLoop final : http::Loop {
  struct Alarm final : http::Timer {
    explicit Alarm(HandLoop& loop) : loop(loop) {}
    ~Alarm() override {
      std::erase_if(loop.alarms, [this](const auto& alarm) { return alarm.owner == this; });
    }
    HandLoop& loop;
  };
  struct Entry {
    double seconds;
    std::function<void()> work;
    Alarm* owner;
  };
  std::deque<std::function<void()>> posted;
  std::vector<Entry> alarms;

  void post(std::function<void()> work) override { posted.push_back(std::move(work)); }
  void after(double seconds, std::function<void()> work) override {
    alarms.push_back({seconds, std::move(work), nullptr});
  }
  std::unique_ptr<http::Timer> timer(double seconds, std::function<void()> work) override {
    auto alarm = std::make_unique<Alarm>(*this);
    alarms.push_back({seconds, std::move(work), alarm.get()});
    return alarm;
  }
  // How many there were.
  size_t run_posted() {
    size_t ran = 0;
    for (; !posted.empty(); ++ran) {
      const auto work = std::move(posted.front());
      posted.pop_front();
      work();
    }
    return ran;
  }
  void ring() {  // all that are armed now
    auto ringing = std::exchange(alarms, {});
    for (const Entry& alarm : ringing) alarm.work();
  }
};

struct Turns final : Paced {
  int count = 0;
  std::function<void()> then;
  void turn() override {
    ++count;
    if (then) then();
  }
};

struct HandExchange final : http::Exchange {
  std::string sent;
  int writes = 0;
  bool ended = false;
  size_t waiting = 0;
  void respond(http::Response response) override { sent += response.body, ended = true; }
  void start_stream(http::Response /*head*/) override {}
  void write(std::string_view bytes) override { sent += bytes, ++writes; }
  void end() override { ended = true; }
  size_t unsent() const override { return waiting; }
  bool gone() const override { return false; }
  int status() const override { return 200; }
};

// One generation: what it has been told to say, and what has been read of it.
struct Voice {
  GenerateRequest request;
  std::vector<TokenEvent> events;
  RequestRecord record;
  void say(const std::vector<TokenId>& ids) {
    for (const TokenId id : ids) {
      request.guide->accept(id);
      events.push_back({id, 0, {}});
      ++record.output_tokens;
    }
    record.phase = Phase::kDecode;
    request.on_event(false);
  }
  void end() {
    record.phase = Phase::kEnded;
    record.end = EndReason::kLength;
    request.on_event(true);
  }
};

struct HandEngine final : Engine {
  struct Hold final : Generation {
    explicit Hold(std::shared_ptr<Voice> voice) : voice(std::move(voice)) {}
    bool poll(std::vector<TokenEvent>& out) override {
      std::ranges::move(voice->events, std::back_inserter(out));
      voice->events.clear();
      return voice->record.phase != Phase::kEnded;
    }
    bool wait(std::vector<TokenEvent>& out) override { return poll(out); }
    void cancel() override {}
    RequestRecord record() const override { return voice->record; }
    std::vector<PromptScore> prompt_scores() const override { return {}; }
    std::shared_ptr<Voice> voice;
  };
  std::vector<std::shared_ptr<Voice>> voices;
  Result<std::unique_ptr<Generation>> submit(GenerateRequest request) override {
    voices.push_back(std::make_shared<Voice>());
    voices.back()->request = std::move(request);
    return std::unique_ptr<Generation>(std::make_unique<Hold>(voices.back()));
  }
  void drain() override {}
  EngineStats stats() const override { return {}; }
};

struct World {
  std::unique_ptr<FileSystem> files = real_files();
  Tokenizer tokenizer = Tokenizer::load(*files, NAUTILE_SOURCE_DIR "/models/nano").value();
  Limits limits;
  ReplayStore replay{1 << 20};
  GrammarCache grammars;
  Backend backend;
  HandEngine* engine = nullptr;
  HandLoop loop;
  Pacer pacer{loop};
  std::shared_ptr<HandExchange> exchange = std::make_shared<HandExchange>();
  std::shared_ptr<Job> job;
  bool done = false;

  explicit World(int n) {
    ServedModel& model = backend.model;
    model.name = "m";
    model.tokenizer = &tokenizer;
    model.tokens = ChatTokens::find(tokenizer).value();
    const std::vector<TokenId> ends = {model.tokens.eos};
    model.trie = std::make_shared<const TokenTrie>(TokenTrie::build(tokenizer, ends));
    model.context = 4096;
    auto hand = std::make_unique<HandEngine>();
    engine = hand.get();
    backend.engine = std::move(hand);
    std::string body =
        R"({"model":"m","messages":[{"role":"user","content":"hi"}],"reasoning_mode":"non_think","stream":true,"n":)" +
        std::to_string(n) + "}";
    auto json = parse_body(body, 128);
    REQUIRE(json.ok());
    const TranslateContext context{model, limits, &replay, &grammars, "me"};
    auto ask = translate_chat(*json, context);
    REQUIRE(ask.ok());
    REQUIRE_FALSE(prepare(*ask, context));
    JobSettings settings;
    settings.queue_timeout_s = 0;  // its alarm is not what these tests ring
    job = std::make_shared<Job>(backend, replay, loop, pacer, exchange, std::move(*ask), settings,
                                [this](Job&, const JobReport&) { done = true; });
    job->start();
    REQUIRE(engine->voices.size() == static_cast<size_t>(n));
  }
  Voice& voice(int choice) { return *engine->voices[choice]; }
  void say(int choice, const std::string& text) { voice(choice).say(tokenizer.encode(text, false).value()); }
  bool sent(const std::string& bytes) const { return exchange->sent.find(bytes) != std::string::npos; }
  // The content that has been sent, of one choice.
  std::string said(int choice = 0) const {
    std::string text;
    size_t at = 0;
    while ((at = exchange->sent.find("data: {", at)) != std::string::npos) {
      const size_t end = exchange->sent.find("\n\n", at);
      const Json event = Json::parse(exchange->sent.substr(at + 6, end - at - 6));
      for (const Json& part : event["choices"]) {
        if (part["index"] == choice) text += part["delta"].value("content", "");
      }
      at = end;
    }
    return text;
  }
};

}  // namespace

TEST_CASE("pacer: one alarm a pace, one turn an alarm, and none for who has gone") {
  HandLoop loop;
  Pacer pacer(loop);
  const auto first = std::make_shared<Turns>(), second = std::make_shared<Turns>(), fast = std::make_shared<Turns>();
  first->then = [&] {
    if (first->count == 1) pacer.add(first, Pacer::kSteady);  // a turn may ask for the next
  };
  pacer.add(first, Pacer::kSteady);
  pacer.add(second, Pacer::kSteady);
  pacer.add(fast, Pacer::kFrames);
  pacer.add(std::make_shared<Turns>(), Pacer::kSteady);
  REQUIRE(loop.alarms.size() == 2);
  CHECK(loop.alarms[0].seconds == Pacer::kInterval_s[Pacer::kSteady]);
  CHECK(loop.alarms[1].seconds == Pacer::kInterval_s[Pacer::kFrames]);
  loop.ring();
  CHECK(first->count == 1);
  CHECK(second->count == 1);
  CHECK(fast->count == 1);
  REQUIRE(loop.alarms.size() == 1);
  loop.ring();
  CHECK(first->count == 2);
  CHECK(second->count == 1);
  CHECK(loop.alarms.empty());
}

TEST_CASE("pacer: only who outruns a screen is written by frames") {
  CHECK(Pacer::pace_of(1, 1.0 / 100) == Pacer::kSteady);
  CHECK(Pacer::pace_of(3, 0.005) == Pacer::kSteady);  // 600 tokens/s
  CHECK(Pacer::pace_of(4, 0.005) == Pacer::kFrames);
  CHECK(Pacer::pace_of(10, 1.0 / 60) == Pacer::kSteady);
  CHECK(Pacer::pace_of(11, 1.0 / 60) == Pacer::kFrames);
}

TEST_CASE("job: the first token leaves at once, those behind it in a turn, and the end waits for none") {
  World w(1);
  w.say(0, "one");
  CHECK(w.loop.run_posted() == 1);
  CHECK(w.said() == "one");
  REQUIRE(w.loop.alarms.size() == 1);

  const int before = w.exchange->writes;
  w.say(0, " two");
  w.say(0, " three");
  CHECK(w.loop.run_posted() == 0);  // the io thread is not even woken
  CHECK(w.said() == "one");
  w.loop.ring();
  CHECK(w.said() == "one two three");
  CHECK(w.exchange->writes == before + 1);
  REQUIRE(w.loop.alarms.size() == 1);

  w.say(0, " four");
  w.voice(0).end();
  CHECK(w.loop.run_posted() == 1);
  CHECK(w.said() == "one two three four");
  CHECK(w.sent("[DONE]"));
  CHECK(w.exchange->ended);
  CHECK(w.done);
  const std::string whole = w.exchange->sent;
  w.loop.ring();  // the turn that was still to come finds nothing
  CHECK(w.exchange->sent == whole);
}

TEST_CASE("job: a turn without tokens is the last until something comes") {
  World w(1);
  w.say(0, "one");
  w.loop.run_posted();
  w.loop.ring();
  CHECK(w.loop.alarms.empty());
  w.say(0, " two");
  CHECK(w.loop.run_posted() == 1);
  w.loop.ring();  // if the pause was shorter than an interval, its turn comes now
  CHECK(w.said() == "one two");
}

TEST_CASE("job: the end of one choice leaves at once, and the others go on") {
  World w(3);
  w.say(0, "red");
  w.say(1, "green");
  w.say(2, "blue");
  w.loop.run_posted();
  w.loop.ring();
  CHECK(w.said(2) == "blue");
  w.voice(1).end();
  w.loop.run_posted();
  CHECK(w.sent("\"finish_reason\":\"length\""));
  CHECK_FALSE(w.exchange->ended);
  w.say(0, " rose");
  w.loop.run_posted();
  w.loop.ring();
  CHECK(w.said(0) == "red rose");
  CHECK(w.said(1) == "green");
  w.voice(0).end();
  w.voice(2).end();
  w.loop.run_posted();
  CHECK(w.sent("[DONE]"));
  CHECK(w.done);
}

TEST_CASE("job: while much is unsent nothing is read, and once it has left all of it is") {
  World w(1);
  w.say(0, "one");
  w.loop.run_posted();
  w.exchange->waiting = 2 << 20;
  w.say(0, " two");
  w.loop.ring();
  CHECK(w.said() == "one");
  CHECK(w.voice(0).events.size() > 0);
  w.exchange->waiting = 0;
  w.exchange->on_drained();
  CHECK(w.said() == "one two");
  w.voice(0).end();
  w.loop.run_posted();
  CHECK(w.done);
}
