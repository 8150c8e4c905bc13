// nautile tokenize: text to token ids and back, with a view of which bytes each token holds.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>

#include "base/json.h"
#include "text/tokenizer.h"
#include "verbs.h"

namespace nautile {
namespace {

struct Options {
  std::vector<std::string> words;  // MODEL and TEXT, or TEXT alone with --tokenizer
  std::string tokenizer;
  std::vector<TokenId> decode;
  bool json = false, jsonl = false, specials = false;
};

Result<Tokenizer> open_tokenizer(const std::string& model, const std::string& file) {
  const auto files = real_files();
  if (file.empty()) return Tokenizer::load(*files, model);
  NAUTILE_ASSIGN(const std::string json, files->read(file, 256u << 20));
  return Tokenizer::parse(json, file);
}

// The token's bytes for a person: white space and control made visible, broken UTF-8 in hex.
std::string visible(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const CodePoint c = decode_utf8(bytes, at);
    if (c.kind != CodePoint::kValid || c.value == 0x7F ||
        (c.value < 0x20 && c.value != '\n' && c.value != '\t' && c.value != '\r')) {
      for (int i = 0; i < c.bytes; ++i) out += fmt::format("\\x{:02x}", static_cast<uint8_t>(bytes[at + i]));
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\\') {
      out += "\\\\";
    } else {
      out += bytes.substr(at, c.bytes);
    }
    at += c.bytes;
  }
  return out;
}

void print_table(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  const bool color = isatty(STDOUT_FILENO) == 1;
  size_t bytes = 0;
  fmt::print("{:>7}  {:>5}  text\n", "id", "bytes");
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string_view token = tokenizer.bytes_of(ids[i]);
    bytes += token.size();
    // Neighbours alternate so that borders show; added tokens stand out.
    const char* paint = tokenizer.is_added(ids[i]) ? "\x1b[1;35m" : i % 2 == 0 ? "\x1b[36m" : "\x1b[33m";
    const char* kind = tokenizer.is_special(ids[i]) ? "  (special)" : tokenizer.is_added(ids[i]) ? "  (added)" : "";
    fmt::print("{:>7}  {:>5}  {}'{}'{}{}\n", ids[i], token.size(), color ? paint : "", visible(token),
               color ? "\x1b[0m" : "", kind);
  }
  fmt::print("{} tokens, {} bytes{}\n", ids.size(), bytes,
             ids.empty() ? "" : fmt::format(", {:.2f} bytes a token", static_cast<double>(bytes) / ids.size()));
}

Json token_json(const Tokenizer& tokenizer, TokenId id) {
  std::string text;
  Utf8Gate gate;
  gate.push(tokenizer.bytes_of(id), text);
  gate.finish(text);
  Json bytes = Json::array();
  for (const unsigned char b : tokenizer.bytes_of(id)) bytes.push_back(b);
  return {{"id", id},
          {"text", text},
          {"bytes", bytes},
          {"added", tokenizer.is_added(id)},
          {"special", tokenizer.is_special(id)}};
}

// One JSON string a line in, one array of ids a line out.
int batch(const Tokenizer& tokenizer, bool specials) {
  std::string line;
  for (size_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = fmt::format("line {} of the input", number);
    auto text = parse_json(line, where);
    if (!text.ok()) return fail(text.status());
    if (!text->is_string())
      return fail({Code::kInvalidArgument, "not a JSON string", where, "give one string a line: \"Hello\""});
    auto ids = tokenizer.encode(text->get_ref<const std::string&>(), specials);
    if (!ids.ok()) return fail(ids.status().at(where));
    fmt::print("[{}]\n", fmt::join(*ids, ","));
  }
  return kExitDone;
}

int tokenize(const Options& options) {
  std::string model, text = "-";
  const size_t wanted_words = options.tokenizer.empty() ? 1 : 0;
  if (options.words.size() < wanted_words || options.words.size() > wanted_words + 1) {
    return fail({Code::kInvalidArgument,
                 "tokenize takes a model directory (or --tokenizer FILE) and at most one text",
                 {},
                 "put the text in quotes, or give - to read it from standard input"});
  }
  if (wanted_words == 1) model = options.words[0];
  const bool text_given = options.words.size() > wanted_words;
  if (text_given) text = options.words[wanted_words];
  if ((options.jsonl || !options.decode.empty()) && text_given) {
    return fail(
        {Code::kInvalidArgument, "a text and --jsonl or --decode were given together", {}, "leave one of them out"});
  }

  auto opened = open_tokenizer(model, options.tokenizer);
  if (!opened.ok()) return fail(opened.status());
  const Tokenizer& tokenizer = *opened;
  if (options.jsonl) return batch(tokenizer, options.specials);

  std::vector<TokenId> ids = options.decode;
  if (ids.empty()) {
    if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
    auto encoded = tokenizer.encode(text, options.specials);
    if (!encoded.ok()) return fail(encoded.status());
    ids = std::move(encoded).value();
  }
  auto decoded = tokenizer.decode(ids);
  if (!decoded.ok()) return fail(decoded.status());
  if (options.json) {
    std::string valid;
    Utf8Gate gate;
    gate.push(*decoded, valid);
    gate.finish(valid);
    Json tokens = Json::array();
    for (const TokenId id : ids) tokens.push_back(token_json(tokenizer, id));
    fmt::print("{}\n",
               Json{{"text", valid}, {"ids", ids}, {"tokens", tokens}, {"vocabulary", tokenizer.size()}}.dump());
  } else if (!options.decode.empty()) {
    fmt::print("{}\n", *decoded);
  } else {
    print_table(tokenizer, ids);
  }
  return kExitDone;
}

}  // namespace

void add_tokenize(CLI::App& app, Run& run) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("tokenize",
                                      "Example: nautile tokenize DeepSeek-V4-Flash \"Hello, world!\"\n\n"
                                      "Shows how the model's tokenizer cuts a text.");
  verb->add_option("words", options->words,
                   "MODEL TEXT: the model directory and the text (- or nothing: standard input)");
  verb->add_option("--tokenizer", options->tokenizer, "a tokenizer.json to use instead of MODEL");
  verb->add_option("--decode", options->decode, "print the text of these ids (comma-separated)")->delimiter(',');
  verb->add_flag("--specials", options->specials, "read literals of added tokens, such as <think>, as these tokens");
  verb->add_flag("--json", options->json, "print one JSON object");
  verb->add_flag("--jsonl", options->jsonl, "read one JSON string a line, print one array of ids a line");
  verb->callback([options, &run] { run = [options] { return tokenize(*options); }; });
}

}  // namespace nautile
