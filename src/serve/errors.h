// Errors as clients see them: one value inside, one body for each dialect.
//
// Thread-safety: values and pure functions. Source: spec api.md section 4.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "serve/http.h"

namespace nautile::serve {

// Which API a request speaks. kOpenAi is also that of every management path.
enum class Dialect { kOpenAi, kCompletions, kResponses, kMessages };
const char* name_of(Dialect dialect);  // "chat", "completions", "responses", "messages"

struct ApiError {
  int status = 500;
  std::string code;     // "invalid_value"; empty: null
  std::string message;  // for a person; never a path, pointer or text of a library
  std::string param{};  // the field, empty: null
  int retry_after_s = 0;
  std::vector<std::pair<std::string, Json>> extra{};  // further members: n_ctx, loading, ...
  Json details{};                                        // Messages: error.details, for clients that read codes there
};

// 400 with the given code.
ApiError bad_request(std::string code, std::string message, std::string param = {});
ApiError internal_error();
ApiError overloaded(std::string code, std::string message, int retry_after_s);
// What a room below said about a client's request; kInternal and the like become a bare 500.
ApiError from_status(const Status& status);

const char* openai_type(int status);
const char* messages_type(int status);

Json error_body(const ApiError& error, Dialect dialect, const std::string& request_id);
http::Response error_response(const ApiError& error, Dialect dialect, const std::string& request_id);

// A value or the error that says why there is none: Result, with the server's own kind of error.
template <class T>
class Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}                        // NOLINT(google-explicit-constructor)
  Outcome(ApiError error) : error_(std::move(error)), failed_(true) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return !failed_; }
  T& operator*() { return value_; }
  T* operator->() { return &value_; }
  const ApiError& error() const { return error_; }

 private:
  T value_{};
  ApiError error_;
  bool failed_ = false;
};

}  // namespace nautile::serve
