// The table of section 4.
#include "serve/errors.h"

namespace nautile::serve {

const char* name_of(Dialect dialect) {
  switch (dialect) {
    case Dialect::kOpenAi:
      return "chat";
    case Dialect::kCompletions:
      return "completions";
    case Dialect::kResponses:
      return "responses";
    case Dialect::kMessages:
      return "messages";
  }
  return "";
}

ApiError bad_request(std::string code, std::string message, std::string param) {
  return {400, std::move(code), std::move(message), std::move(param)};
}

ApiError internal_error() {
  return {500, "internal_error", "The server failed to answer this request."};
}

ApiError overloaded(std::string code, std::string message, int retry_after_s) {
  return {503, std::move(code), std::move(message), {}, retry_after_s};
}

ApiError from_status(const Status& status) {
  std::string message = status.what();
  std::string param = status.where();
  if (param.starts_with("request.")) param = param.substr(8);
  if (!param.empty()) message = param + ": " + message;
  if (!status.fix().empty()) message += " (" + status.fix() + ")";
  const bool unsupported_part = message.find("the model reads text only") != std::string::npos;
  const bool missing = message.find(" is missing") != std::string::npos;
  switch (status.code()) {
    case Code::kInvalidArgument:
      return bad_request(unsupported_part ? "unsupported_content"
                         : missing        ? "missing_required_parameter"
                                          : "invalid_value",
                         message, param);
    case Code::kCorrupt:
      return bad_request("invalid_value", message, param);
    case Code::kUnsupported:
      return bad_request("unsupported_value", message, param);
    case Code::kResourceExhausted:
      return overloaded("server_overloaded", "The server is full: " + status.what() + ".", 1);
    case Code::kCancelled:
      return overloaded("server_draining", "The server is shutting down.", 5);
    default:
      return internal_error();
  }
}

const char* openai_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

const char* messages_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
    case 504:
      return "timeout_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
    case 529:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

Json error_body(const ApiError& error, Dialect dialect, const std::string& request_id) {
  if (dialect == Dialect::kMessages) {
    Json inner = {{"type", messages_type(error.status)}, {"message", error.message}};
    if (!error.details.is_null()) inner["details"] = error.details;
    return {{"type", "error"}, {"error", inner}, {"request_id", request_id}};
  }
  Json inner = {{"message", error.message}, {"type", openai_type(error.status)}};
  inner["param"] = error.param.empty() ? Json(nullptr) : Json(error.param);
  inner["code"] = error.code.empty() ? Json(nullptr) : Json(error.code);
  for (const auto& [name, value] : error.extra) inner[name] = value;
  return {{"error", inner}};
}

http::Response error_response(const ApiError& error, Dialect dialect, const std::string& request_id) {
  http::Response response;
  response.status = error.status;
  if (dialect == Dialect::kMessages && error.code == "server_overloaded") response.status = 529;
  response.body = error_body(error, dialect, request_id).dump(-1, ' ', false, Json::error_handler_t::replace);
  if (error.status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  if (error.retry_after_s > 0) {
    response.headers.push_back({"Retry-After", std::to_string(error.retry_after_s)});
    response.headers.push_back({"retry-after-ms", std::to_string(1000 * error.retry_after_s)});
  }
  return response;
}

}  // namespace nautile::serve
