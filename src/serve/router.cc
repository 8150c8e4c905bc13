// The table, and looking a path up in it.
#include "serve/router.h"

namespace nautile::serve {
namespace {

using enum Action;
constexpr Dialect kO = Dialect::kOpenAi, kC = Dialect::kCompletions, kR = Dialect::kResponses, kM = Dialect::kMessages;

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", kChat, kO, false, "Chat completion"},
    {"POST", "/chat/completions", kChat, kO, false, "", false},
    {"POST", "/beta/chat/completions", kChat, kO, false, "", false},
    {"POST", "/v1/chat/completions/render", kRenderChat, kO, false, "The prompt a chat completion would see"},
    {"POST", "/v1/completions", kCompletions, kC, false, "Completion of raw text, and fill in the middle"},
    {"POST", "/completions", kCompletions, kC, false, "", false},
    {"POST", "/beta/completions", kCompletions, kC, false, "", false},
    {"POST", "/v1/completions/render", kRenderCompletions, kC, false, "The prompt a completion would see"},
    {"POST", "/v1/responses", kResponses, kR, false, "Response"},
    {"POST", "/responses", kResponses, kR, false, "", false},
    {"POST", "/v1/responses/input_tokens", kInputTokens, kR, false, "Count a response's input tokens"},
    {"GET", "/v1/responses/{id}", kResponseGet, kR, false, "A stored response"},
    {"DELETE", "/v1/responses/{id}", kResponseDelete, kR, false, "Forget a stored response"},
    {"POST", "/v1/responses/{id}/cancel", kResponseCancel, kR, false, "Cancel a running response"},
    {"GET", "/v1/responses/{id}/input_items", kResponseItems, kR, false, "The input of a stored response"},
    {"POST", "/v1/messages", kMessages, kM, false, "Message (Anthropic)"},
    {"POST", "/anthropic/v1/messages", kMessages, kM, false, "", false},
    {"POST", "/v1/messages/count_tokens", kCountTokens, kM, false, "Count a message's input tokens (Anthropic)"},
    {"POST", "/anthropic/v1/messages/count_tokens", kCountTokens, kM, false, "", false},
    {"GET", "/v1/models", kModels, kO, false, "Models"},
    {"GET", "/models", kModels, kO, false, "", false},
    {"GET", "/anthropic/v1/models", kAnthropicModels, kM, false, "", false},
    {"GET", "/v1/models/{rest}", kModel, kO, false, "One model"},
    {"GET", "/models/{rest}", kModel, kO, false, "", false},
    {"POST", "/tokenize", kTokenize, kO, false, "Text or messages to token ids"},
    {"POST", "/v1/tokenize", kTokenize, kO, false, "", false},
    {"POST", "/detokenize", kDetokenize, kO, false, "Token ids to text"},
    {"POST", "/v1/detokenize", kDetokenize, kO, false, "", false},
    {"GET", "/tokenizer_info", kTokenizerInfo, kO, false, "The special tokens"},
    {"GET", "/health", kHealth, kO, true, "Ready, as a status code"},
    {"GET", "/ping", kPing, kO, true, "Ready, as a status code"},
    {"GET", "/v1/health/live", kLive, kO, true, "Liveness"},
    {"GET", "/v1/health/ready", kReady, kO, true, "Readiness"},
    {"GET", "/v1/metadata", kMetadata, kO, false, "What is running"},
    {"GET", "/v1/version", kVersion, kO, false, "Release and API version"},
    {"GET", "/version", kPlainVersion, kO, false, "Release"},
    {"GET", "/v1/license", kLicense, kO, false, "The licence"},
    {"GET", "/v1/manifest", kManifest, kO, false, "The manifest"},
    {"GET", "/v1/status", kStatus, kO, false, "The engine at a glance, and the caller's running requests"},
    {"GET", "/load", kLoad, kO, false, "Running and waiting requests"},
    {"GET", "/metrics", kMetrics, kO, false, "Prometheus metrics"},
    {"GET", "/v1/metrics", kNimMetrics, kO, false, "Prometheus metrics under NIM's names"},
    {"GET", "/openapi.json", kOpenApi, kO, false, "This description"},
    {"GET", "/v1/openapi.json", kOpenApi, kO, false, "", false},
    {"GET", "/", kPage, kO, true, "", false},
    {"GET", "/ui/{rest}", kPage, kO, true, "", false},
};

bool matches(std::string_view pattern, std::string_view path, std::string& argument) {
  const size_t hole = pattern.find('{');
  if (hole == std::string_view::npos) return pattern == path;
  if (!path.starts_with(pattern.substr(0, hole))) return false;
  std::string_view rest = path.substr(hole);
  const size_t close = pattern.find('}', hole);
  const std::string_view tail = pattern.substr(close + 1);
  if (rest.size() <= tail.size() || !rest.ends_with(tail)) return false;
  rest.remove_suffix(tail.size());
  if (pattern.substr(hole + 1, close - hole - 1) == "id" && rest.find('/') != std::string_view::npos) return false;
  argument = std::string(rest);
  return true;
}

}  // namespace

std::span<const Route> routes() {
  return kRoutes;
}

Match match(std::string_view method, std::string_view path) {
  Match found;
  std::string argument;
  for (const Route& route : kRoutes) {
    if (!matches(route.path, path, argument)) continue;
    if (method == route.method) {
      found.route = &route;
      found.argument = argument;
      return found;
    }
    if (found.allow.find(route.method) == std::string::npos) {
      if (!found.allow.empty()) found.allow += ", ";
      found.allow += route.method;
      if (std::string_view(route.method) == "GET") found.allow += ", HEAD";
    }
  }
  if (!found.allow.empty()) found.allow += ", OPTIONS";
  return found;
}

Dialect dialect_of_path(std::string_view path) {
  if (path.starts_with("/v1/messages") || path.starts_with("/anthropic/")) return Dialect::kMessages;
  if (path.starts_with("/v1/responses") || path.starts_with("/responses")) return Dialect::kResponses;
  return Dialect::kOpenAi;
}

}  // namespace nautile::serve
