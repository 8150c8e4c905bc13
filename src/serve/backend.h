// What answers: a model as serving sees it, and the engine that runs it.
//
// Thread-safety: read-only once made, but for the engine, which locks itself. Source: spec api.md 1.13.
#pragma once

#include <memory>
#include <optional>

#include "serve/request.h"
#include "serve/scripted_engine.h"

namespace nautile::serve {

struct Backend {
  std::shared_ptr<void> keeps_alive;  // the loaded model or the tokenizer: destroyed last
  ServedModel model;
  std::unique_ptr<Engine> engine;
  ScriptedEngine* scripted = nullptr;  // `engine`, when it is one
  Json scripts;                        // by name, for scripted
  double load_s = 0;

  // Picks the script that x-script names, or holds as JSON. Errors of Engine::submit(); of a scripted engine also
  // kInvalidArgument at "x-script" and those of parse_json() and Script::parse().
  Result<std::unique_ptr<Generation>> submit(GenerateRequest request, const std::string& script, int choice);
};

}  // namespace nautile::serve
