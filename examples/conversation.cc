// A conversation of two turns. usage: example_conversation MODEL_DIRECTORY
#include <cstdio>

#include "nautile/session.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL_DIRECTORY\n", argv[0]);
    return 2;
  }
  auto model = nautile::Model::open(argv[1]);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().message().c_str());
    return 1;
  }
  nautile::Session session(**model);
  nautile::AskOptions options;
  options.sampling.temperature = 0;
  for (const char* question : {"What is 48 + 75?", "What is 12 + 30?"}) {
    std::printf("> %s\n", question);
    auto print = [](std::string_view piece, bool reasoning) {
      if (!reasoning) std::printf("%.*s", static_cast<int>(piece.size()), piece.data());
      return true;
    };
    auto answer = session.ask(question, options, print);
    if (!answer.ok()) {
      std::fprintf(stderr, "%s\n", answer.status().message().c_str());
      return 1;
    }
    const nautile::RequestRecord& r = answer->record;
    std::printf("\n  [%lld of %lld prompt tokens from the cache, %lld tokens out, first after %.0f ms]\n",
                static_cast<long long>(r.cached_tokens), static_cast<long long>(r.prompt_tokens),
                static_cast<long long>(r.output_tokens), 1000 * r.first_token_s);
  }
  return 0;
}
