// Every path there is, in one table: deny by default.
//
// Thread-safety: pure functions over constant tables. Source: spec api.md 1.1, 3.1, 5.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "serve/errors.h"

namespace nautile::serve {

enum class Action {
  kChat,
  kCompletions,
  kMessages,
  kCountTokens,
  kResponses,
  kInputTokens,
  kResponseGet,
  kResponseDelete,
  kResponseCancel,
  kResponseItems,
  kRenderChat,
  kRenderCompletions,
  kTokenize,
  kDetokenize,
  kTokenizerInfo,
  kModels,
  kModel,
  kAnthropicModels,
  kHealth,
  kPing,
  kLive,
  kReady,
  kMetadata,
  kVersion,
  kPlainVersion,
  kLicense,
  kManifest,
  kLoad,
  kStatus,
  kMetrics,
  kNimMetrics,
  kOpenApi,
  kPage,
};

struct Route {
  const char* method;
  const char* path;  // "{id}" stands for one segment, "{rest}" for all that follow
  Action action;
  Dialect dialect = Dialect::kOpenAi;
  bool open = false;  // needs no key
  const char* summary = "";
  bool listed = true;  // in /openapi.json; aliases are not
};

std::span<const Route> routes();

struct Match {
  const Route* route = nullptr;
  std::string argument;  // what {id} or {rest} stands for
  std::string allow;     // methods of the path, when the method is not one of them
};
Match match(std::string_view method, std::string_view path);

// The dialect whose errors an unknown path gets, by its prefix.
Dialect dialect_of_path(std::string_view path);

}  // namespace nautile::serve
