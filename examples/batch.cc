// Many generations at once, on token ids. usage: example_batch MODEL_DIRECTORY
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
  auto prompt = (*model)->encode("<｜begin▁of▁sentence｜>The quick brown", true);
  if (!prompt.ok()) {
    std::fprintf(stderr, "%s\n", prompt.status().message().c_str());
    return 1;
  }
  std::vector<std::unique_ptr<nautile::Generation>> running;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    nautile::GenerateRequest request;
    request.prompt = *prompt;
    request.max_tokens = 16;
    request.sampling.seed = seed;
    auto generation = (*model)->engine().submit(std::move(request));
    if (!generation.ok()) {
      std::fprintf(stderr, "%s\n", generation.status().message().c_str());
      return 1;
    }
    running.push_back(std::move(generation).value());
  }
  for (auto& generation : running) {
    std::vector<nautile::TokenEvent> events;
    while (generation->wait(events)) {
    }
    std::vector<nautile::TokenId> ids;
    for (const nautile::TokenEvent& event : events) ids.push_back(event.id);
    auto text = (*model)->decode(ids);
    std::printf("%llu: %s\n", static_cast<unsigned long long>(generation->record().id),
                text.ok() ? text->c_str() : text.status().message().c_str());
  }
  return 0;
}
