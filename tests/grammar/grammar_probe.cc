// Grammars from outside the unit tests.
//
//   grammar_probe TOKENIZER.json serve     one request a line on stdin, one answer a line on stdout
//   grammar_probe TOKENIZER.json time [N]  a table: compile, first mask, mask seen before, accept; over N walks
//
// A request is {"schema": ...} or {"regex": "..."} with "walks" and "seed" (random texts that the grammar allows, cut
// after "limit" tokens), or with "prefix" (the ids allowed behind it). "lenient" as in the API.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <random>

#include "sys/clock.h"
#include "text/grammar.h"

namespace {

using namespace nautile;

std::vector<TokenId> ids_of(std::span<const uint32_t> mask) {
  std::vector<TokenId> ids;
  for (size_t word = 0; word < mask.size(); ++word) {
    for (uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
      ids.push_back(static_cast<TokenId>(word * 32 + static_cast<size_t>(__builtin_ctz(bits))));
    }
  }
  return ids;
}

struct Times {
  std::vector<double> first, again, accept;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())))];
}

// A text the grammar allows; tokens that close and the end are preferred as it grows. Empty optional: not ended by
// then.
std::optional<std::string> walk(const std::shared_ptr<const Grammar>& grammar, std::mt19937& random, size_t limit,
                                TokenId dsml, Times* times) {
  GrammarMatcher matcher(grammar);
  const TokenTrie& trie = grammar->trie();
  std::vector<uint32_t> mask(trie.mask_words());
  const TokenId end = trie.end_tokens()[0];
  std::string text;
  for (size_t step = 0; step < limit; ++step) {
    const double begin = seconds_now();
    matcher.fill_mask(mask);
    const double filled = seconds_now();
    if (times) {
      times->first.push_back(filled - begin);
      matcher.fill_mask(mask);
      times->again.push_back(seconds_now() - filled);
    }
    const std::vector<TokenId> ids = ids_of(mask);
    if (ids.empty()) {
      std::fprintf(stderr, "dead end behind %s\n", text.c_str());
      std::exit(1);
    }
    TokenId pick = ids[random() % ids.size()];
    if (step > 20 && random() % 4) {
      std::vector<TokenId> closing;
      for (const TokenId id : ids) {
        const std::string_view bytes = trie.bytes_of(id);
        if (id == end || id == dsml || bytes == "\"" || bytes == "}" || bytes == "]" || bytes == "</")
          closing.push_back(id);
      }
      if (!closing.empty()) pick = closing[random() % closing.size()];
    }
    if (matcher.can_end() && random() % 4 == 0) pick = end;
    const double before = seconds_now();
    if (!matcher.accept(pick)) {
      std::fprintf(stderr, "token %d was allowed and is not accepted behind %s\n", pick, text.c_str());
      std::exit(1);
    }
    if (times) times->accept.push_back(seconds_now() - before);
    if (pick == end) return text;
    text += trie.bytes_of(pick);
  }
  return std::nullopt;
}

void print_times(const char* name, const GrammarRequest& request, const std::shared_ptr<const TokenTrie>& trie,
                 int walks, TokenId dsml) {
  const double begin = seconds_now();
  auto grammar = Grammar::compile(request, trie);
  const double compiled = seconds_now() - begin;
  if (!grammar.ok()) {
    std::printf("%-22s %9.2f ms  %s\n", name, compiled * 1e3, grammar.status().what().c_str());
    return;
  }
  Times times;
  std::mt19937 random(7);
  for (int i = 0; i < walks; ++i) (void)walk(*grammar, random, 400, dsml, &times);
  std::printf("%-22s %7.2f %8zu %9.3f %9.3f %9.3f %8.2f %8.2f %8.2f %7.1f %7zu\n", name, compiled * 1e3,
              (*grammar)->states(), times.first[0] * 1e3, quantile(times.first, 0.5) * 1e3,
              quantile(times.first, 1) * 1e3, quantile(times.again, 0.5) * 1e6, quantile(times.again, 0.99) * 1e6,
              quantile(times.accept, 0.5) * 1e6, static_cast<double>((*grammar)->bytes()) / 1e6, times.first.size());
}

GrammarRequest schema_of(std::string_view text) {
  auto schema = parse_json(text, "schema");
  GrammarRequest request;
  request.text.kind = TextConstraint::kJsonSchema;
  if (schema.ok()) request.text.schema = *schema;
  return request;
}

int time_table(const Tokenizer& tokenizer, const std::shared_ptr<const TokenTrie>& trie, int walks) {
  std::printf("%zu tokens, %zu nodes; ms but where us is said\n", trie->vocabulary(), trie->nodes().size());
  std::printf("%-22s %7s %8s %9s %9s %9s %8s %8s %8s %7s %7s\n", "grammar", "compile", "states", "mask 1st", "median",
              "worst", "again us", "99% us", "accept", "MB", "steps");
  GrammarRequest request;
  const TokenId dsml = tokenizer.id_of("｜DSML｜").value_or(-1);
  request.text.kind = TextConstraint::kJsonObject;
  print_times("json_object", request, trie, walks, dsml);
  print_times("person",
              schema_of(R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,
    "maximum":150},"tags":{"type":"array","items":{"type":"string"}},"kind":{"enum":["a","b","c"]}},
    "required":["name","age","tags"]})"),
              trie, walks, dsml);
  print_times("tree (recursive)",
              schema_of(R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"string"},
    "kids":{"type":"array","items":{"$ref":"#/$defs/n"}}},"required":["v","kids"]}}})"),
              trie, walks, dsml);
  print_times("maxLength 500", schema_of(R"({"type":"string","maxLength":500})"), trie, walks, dsml);
  print_times("date-time", schema_of(R"({"type":"string","format":"date-time"})"), trie, walks, dsml);
  std::string many = R"({"enum":[)";
  for (int i = 0; i < 10000; ++i) many += (i ? ",\"value " : "\"value ") + std::to_string(i * 7919) + "\"";
  print_times("enum of 10000", schema_of(many + "]}"), trie, walks, dsml);
  std::string wide = R"({"type":"object","properties":{)";
  for (int i = 0; i < 500; ++i)
    wide += (i ? ",\"" : "\"") + ("property" + std::to_string(i)) + R"(":{"type":"string"})";
  print_times("500 optional", schema_of(wide + "}}"), trie, walks, dsml);
  request.text.kind = TextConstraint::kRegex;
  request.text.pattern = "(a{1,30}b?){1,300}[^c]*";
  print_times("regex", request, trie, walks, dsml);
  request.text.pattern = "(.{0,1000}){0,90}x";
  print_times("regex, adversarial", request, trie, 1, dsml);
  GrammarRequest tools;
  tools.tools.emplace();
  tools.tools->dsml = dsml;
  tools.tools->choice.kind = ToolChoice::kRequired;
  for (int i = 0; i < 20; ++i) {
    auto parameters = parse_json(R"({"type":"object","properties":{"path":{"type":"string"},"line":{"type":"integer"},
      "mode":{"enum":["r","w"]},"options":{"type":"object","properties":{"deep":{"type":"boolean"}}}},"required":["path"]})",
                                 "p");
    tools.tools->tools.push_back({"tool_" + std::to_string(i), "", *parameters});
  }
  print_times("20 tools, required", tools, trie, walks, dsml);
  tools.tools->choice.kind = ToolChoice::kAuto;
  print_times("20 tools, auto", tools, trie, walks, dsml);
  return 0;
}

int serve(const std::shared_ptr<const TokenTrie>& trie) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto asked = parse_json(line, "request");
    if (!asked.ok()) return 1;
    const Json& in = asked.value();
    GrammarRequest request;
    if (in.contains("schema")) {
      request.text.kind = TextConstraint::kJsonSchema;
      request.text.schema = in.at("schema");
      request.text.lenient = in.value("lenient", false);
    } else {
      request.text.kind = TextConstraint::kRegex;
      request.text.pattern = in.at("regex").get<std::string>();
    }
    Json out = Json::object();
    const double begin = seconds_now();
    auto grammar = Grammar::compile(request, trie);
    if (!grammar.ok()) {
      out["error"] = grammar.status().what();
      out["where"] = grammar.status().where();
    } else if (in.contains("prefix")) {
      GrammarMatcher matcher(*grammar);
      if (matcher.accept_bytes(in.at("prefix").get<std::string>())) {
        std::vector<uint32_t> mask(trie->mask_words());
        matcher.fill_mask(mask);
        out["ids"] = ids_of(mask);
      } else {
        out["ids"] = nullptr;
      }
    } else {
      std::mt19937 random(in.value("seed", 1u));
      out["texts"] = Json::array();
      for (int i = 0; i < in.value("walks", 1); ++i) {
        const auto text = walk(*grammar, random, in.value("limit", 1500u), -1, nullptr);
        if (text) {
          out["texts"].push_back(*text);
        } else {
          out["cut"] = out.value("cut", 0) + 1;
        }
      }
    }
    out["seconds"] = seconds_now() - begin;
    std::cout << out.dump() << std::endl;
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: grammar_probe TOKENIZER.json serve | time [N]\n");
    return 2;
  }
  const auto json = real_files()->read(arguments[1], 64 << 20);
  const auto tokenizer = json.ok() ? Tokenizer::parse(json.value(), arguments[1]) : Result<Tokenizer>(json.status());
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().message().c_str());
    return 1;
  }
  const TokenId end[] = {tokenizer.value().id_of("<｜end▁of▁sentence｜>").value_or(1)};
  const double begin = seconds_now();
  const auto trie = std::make_shared<const TokenTrie>(TokenTrie::build(tokenizer.value(), end));
  const double built = seconds_now() - begin;
  if (std::string_view(arguments[2]) == "serve") return serve(trie);
  std::printf("token tree built in %.1f ms\n", built * 1e3);
  return time_table(tokenizer.value(), trie, count > 3 ? std::atoi(arguments[3]) : 20);
}
