// Requests of every dialect, from the body's bytes to prompt tokens: no crash, no 5xx of our making, bounded work.
// The first byte picks the dialect.
#include <cstdint>
#include <cstdlib>

#include "serve/translate.h"
#include "sys/file.h"

using namespace nautile;
using namespace nautile::serve;

namespace {

struct World {
  std::unique_ptr<FileSystem> files = real_files();
  std::unique_ptr<Tokenizer> tokenizer;
  ServedModel model;
  Limits limits;
  ReplayStore replay{1 << 20};
  GrammarCache grammars{1 << 20};
  World() {
    const char* directory = std::getenv("NAUTILE_FUZZ_MODEL");
    auto loaded = Tokenizer::load(*files, directory != nullptr ? directory : "models/nano");
    if (!loaded.ok()) std::abort();  // run from the source directory, or set NAUTILE_FUZZ_MODEL
    tokenizer = std::make_unique<Tokenizer>(std::move(loaded).value());
    model.name = "m";
    model.tokenizer = tokenizer.get();
    model.tokens = ChatTokens::find(*tokenizer).value();
    const std::vector<TokenId> ends = {model.tokens.eos};
    model.trie = std::make_shared<const TokenTrie>(TokenTrie::build(*tokenizer, ends));
    model.context = 1 << 20;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static World& world = *new World();
  if (size < 2) return 0;
  std::string body(reinterpret_cast<const char*>(data + 1), size - 1);
  TranslateContext context{world.model, world.limits, &world.replay, &world.grammars, "fuzz"};
  context.default_model = true;
  auto json = parse_body(body, world.limits.max_json_depth);
  if (!json.ok()) return 0;
  auto ask = data[0] % 4 == 0   ? translate_chat(*json, context)
             : data[0] % 4 == 1 ? translate_completions(*json, context)
             : data[0] % 4 == 2 ? translate_messages(*json, context, data[0] & 8)
                                : translate_responses(*json, context);
  if (!ask.ok()) {
    if (ask.error().status >= 500) std::abort();
    return 0;
  }
  if (const auto error = prepare(*ask, context)) {
    if (error->status >= 500) std::abort();
    return 0;
  }
  if (const auto error = constrain(*ask, context); error && error->status >= 500) std::abort();
  return 0;
}
