// The guide, token by token: channels, stops, budget, masks, grammar, and tokens riding on their text.
#include "serve/output.h"

#include <doctest/doctest.h>

#include "sys/file.h"

using namespace nautile;
using namespace nautile::serve;

namespace {

struct World {
  std::unique_ptr<FileSystem> files = real_files();
  Tokenizer tokenizer = Tokenizer::load(*files, NAUTILE_SOURCE_DIR "/models/nano").value();
  ChatTokens tokens = ChatTokens::find(tokenizer).value();

  OutputPlan plan() {
    OutputPlan plan;
    plan.tokenizer = &tokenizer;
    plan.tokens = tokens;
    return plan;
  }
  std::vector<TokenId> ids(const std::string& text) { return tokenizer.encode(text, true).value(); }
};

struct Said {
  std::string reasoning, content;
  std::vector<uint32_t> tokens;  // of the content
  OutputSummary summary;
  size_t accepted = 0;
};

Said say(Output& output, const std::vector<TokenId>& ids, EndReason end = EndReason::kEndToken) {
  Said said;
  std::vector<Piece> pieces;
  for (const TokenId id : ids) {
    ++said.accepted;
    if (!output.accept(id)) break;
    output.take(static_cast<uint32_t>(said.accepted), pieces);
  }
  said.summary = output.finish(end, pieces);
  for (const Piece& piece : pieces) {
    if (piece.kind == OutputEvent::kReasoning) said.reasoning += piece.text;
    if (piece.kind == OutputEvent::kContent) {
      said.content += piece.text;
      said.tokens.insert(said.tokens.end(), piece.tokens.begin(), piece.tokens.end());
    }
  }
  return said;
}

bool allows(std::span<const uint32_t> mask, TokenId id) {
  return mask.empty() || (mask[id / 32] >> (id % 32) & 1) != 0;
}

}  // namespace

TEST_CASE("control tokens without tools can neither be drawn nor become text") {
  World w;
  Output output(w.plan());
  CHECK_FALSE(allows(output.allowed(), w.tokens.dsml));
  CHECK_FALSE(allows(output.allowed(), w.tokens.think_open));
  CHECK(allows(output.allowed(), w.tokens.eos));
  auto ids = w.ids("ab");
  ids.insert(ids.begin() + 1, w.tokens.think_open);
  CHECK(say(output, ids).content.find("think") == std::string::npos);
}

TEST_CASE("a stop string ends the answer, and only visible text counts") {
  World w;
  OutputPlan plan = w.plan();
  plan.start = OutputStart::kReasoning;
  plan.stop = {"END"};
  Output output(plan);
  const Said said = say(output, w.ids("END</think>one END two"));
  CHECK(said.reasoning == "END");
  CHECK(said.content == "one ");
  CHECK(said.summary.stop_string == "END");
  CHECK(said.summary.finish == FinishReason::kStop);
}

TEST_CASE("the thinking budget leaves one way on") {
  World w;
  OutputPlan plan = w.plan();
  plan.start = OutputStart::kReasoning;
  plan.thinking_budget = 2;
  Output output(plan);
  const auto ids = w.ids("abcdef");
  REQUIRE(ids.size() >= 3);
  CHECK(output.accept(ids[0]));
  CHECK(allows(output.allowed(), ids[1]));
  CHECK(output.accept(ids[1]));
  const auto mask = output.allowed();
  for (size_t id = 0; id < w.tokenizer.size(); ++id) {
    CHECK(allows(mask, static_cast<TokenId>(id)) == (static_cast<TokenId>(id) == w.tokens.think_close));
  }
  CHECK(output.accept(w.tokens.think_close));
  CHECK(allows(output.allowed(), ids[2]));
  std::vector<Piece> pieces;
  const OutputSummary summary = output.finish(EndReason::kLength, pieces);
  CHECK(summary.reasoning_tokens == 2);
  CHECK(summary.budget_hit);
}

TEST_CASE("tokens ride on the text they begin, markers and dropped newlines do not") {
  World w;
  OutputPlan plan = w.plan();
  plan.start = OutputStart::kReasoning;
  plan.track_tokens = true;
  Output output(plan);
  const auto ids = w.ids("hm</think>\n\nGrüße");
  const Said said = say(output, ids);
  CHECK(said.content == "Grüße");
  std::string joined;
  for (const uint32_t i : said.tokens) joined += w.tokenizer.bytes_of(ids[i]);
  CHECK(joined == "Grüße");
}

TEST_CASE("a grammar begins behind the reasoning") {
  World w;
  const std::vector<TokenId> ends = {w.tokens.eos};
  const auto trie = std::make_shared<const TokenTrie>(TokenTrie::build(w.tokenizer, ends));
  GrammarRequest request;
  request.text.kind = TextConstraint::kChoice;
  request.text.choices = {"yes", "no"};
  OutputPlan plan = w.plan();
  plan.start = OutputStart::kReasoning;
  plan.grammar = Grammar::compile(request, trie).value();
  plan.must_answer = true;
  Output output(plan);
  const TokenId x = w.ids("x")[0], y = w.ids("y")[0];
  CHECK(allows(output.allowed(), x));
  CHECK_FALSE(allows(output.allowed(), w.tokens.eos));
  CHECK_FALSE(allows(output.allowed(), w.tokens.dsml));
  CHECK(output.accept(x));
  CHECK(output.accept(w.tokens.think_close));
  CHECK_FALSE(allows(output.allowed(), x));
  CHECK(allows(output.allowed(), y));
  CHECK_FALSE(allows(output.allowed(), w.tokens.eos));
  for (const TokenId id : w.ids("yes")) CHECK(output.accept(id));
  CHECK(allows(output.allowed(), w.tokens.eos));
  CHECK_FALSE(allows(output.allowed(), y));
  CHECK_FALSE(output.accept(w.tokens.eos));
}

TEST_CASE("bad words: one token is never drawn, more are cut before their last") {
  World w;
  OutputPlan plan = w.plan();
  const auto long_word = w.ids("zqx");
  REQUIRE(long_word.size() >= 2);
  plan.bad_words = {w.ids("a"), long_word};
  Output output(plan);
  CHECK_FALSE(allows(output.allowed(), w.ids("a")[0]));
  CHECK(allows(output.allowed(), long_word.back()));
  for (size_t i = 0; i + 1 < long_word.size(); ++i) CHECK(output.accept(long_word[i]));
  CHECK_FALSE(allows(output.allowed(), long_word.back()));
}

TEST_CASE("raw text: a code point over several tokens, ignore_eos, stop ids") {
  World w;
  OutputPlan plan = w.plan();
  plan.chat = false;
  {
    Output output(plan);
    CHECK(say(output, w.ids("a🐦b")).content == "a🐦b");
  }
  plan.stop_ids = {w.ids("a b").back()};
  {
    Output output(plan);
    const Said said = say(output, w.ids("a b"));
    CHECK(said.content.find('b') == std::string::npos);
  }
  plan.stop_ids.clear();
  plan.ignore_eos = true;
  Output output(plan);
  CHECK_FALSE(allows(output.allowed(), w.tokens.eos));
}
