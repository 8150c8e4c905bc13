// Status and Result<T>: how every Nautile function reports failure. An error carries a code, what happened, where
// (file, tensor, byte, field) and what the reader can do about it. No exception crosses a module.
//
// Thread-safety: values; share like any other value.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace nautile {

enum class Code {
  kOk,
  kInvalidArgument,    // a flag, request or call that can never work
  kNotFound,           // a file, tensor or name that does not exist
  kCorrupt,            // bytes that break their own format
  kUnsupported,        // well-formed, but nothing Nautile runs
  kResourceExhausted,  // does not fit: memory, disk, context
  kCancelled,
  kIo,        // the operating system refused
  kInternal,  // a broken promise inside Nautile
};

// "invalid argument", "not found", ...
const char* code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string what, std::string where = {}, std::string fix = {})
      : code_(code), what_(std::move(what)), where_(std::move(where)), fix_(std::move(fix)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& what() const { return what_; }    // what happened, one sentence
  const std::string& where() const { return where_; }  // "model-00001.safetensors, tensor embed.weight, byte 812"
  const std::string& fix() const { return fix_; }      // what to do about it

  // Puts `outer` before what is already known of the place.
  Status at(const std::string& outer) && {
    where_ = where_.empty() ? outer : outer + ", " + where_;
    return std::move(*this);
  }
  // One to three lines for a person.
  std::string message() const;

 private:
  Code code_ = Code::kOk;
  std::string what_, where_, fix_;
};

// A value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : state_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  // Precondition: ok(). Ends the process otherwise, since that is a bug in the caller.
  T& value() & { return get(); }
  const T& value() const& { return const_cast<Result*>(this)->get(); }
  T&& value() && { return std::move(get()); }
  T& operator*() { return get(); }
  T* operator->() { return &get(); }
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }

 private:
  T& get() {
    if (!ok()) std::abort();
    return std::get<T>(state_);
  }
  std::variant<T, Status> state_;
};

}  // namespace nautile
