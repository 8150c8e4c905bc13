// Choosing a script.
#include "serve/backend.h"

namespace nautile::serve {

Result<std::unique_ptr<Generation>> Backend::submit(GenerateRequest request, const std::string& script, int choice) {
  if (scripted == nullptr || script.empty()) return engine->submit(std::move(request));
  Json json;
  if (script.front() == '{') {
    NAUTILE_ASSIGN(json, parse_json(script, "x-script"));
  } else if (scripts.is_object() && scripts.contains(script)) {
    json = scripts[script];
  } else {
    return Status(Code::kInvalidArgument, "there is no such script", "x-script");
  }
  if (json.contains("choices") && json["choices"].is_array() && !json["choices"].empty()) {
    const Json list = json["choices"];
    json = list[static_cast<size_t>(choice) % list.size()];
  }
  NAUTILE_ASSIGN(Script parsed, Script::parse(json, *model.tokenizer));
  return scripted->submit(std::move(request), std::move(parsed));
}

}  // namespace nautile::serve
