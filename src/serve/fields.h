// Reading a JSON request field by field: typed, range-checked, the first fault kept, unknown names remembered.
//
// null equals absence everywhere; 5.0 is a whole number, true is not; strings are never taken for numbers.
// Thread-safety: none; the JSON must outlive the reader. Source: spec api.md 2.2.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "serve/errors.h"

namespace nautile::serve {

// What all readers of one request share.
struct FieldNotes {
  std::optional<ApiError> error;     // the first
  std::vector<std::string> ignored;  // unknown fields by path
  void fail(ApiError e) {
    if (!error) error = std::move(e);
  }
};

class Fields {
 public:
  // `path` is "" for the request itself.
  Fields(const Json& object, std::string path, FieldNotes& notes);

  // The value, or null if it is absent or JSON null. Marks the name as known.
  const Json* get(const char* name);
  bool has(const char* name) { return get(name) != nullptr; }

  // Each leaves `out` alone when the field is absent or wrong, and returns whether it was there and right.
  bool integer(const char* name, int64_t& out, int64_t low, int64_t high);
  bool number(const char* name, double& out, double low, double high, bool low_open = false);
  bool boolean(const char* name, bool& out);
  bool text(const char* name, std::string& out, size_t max_bytes = SIZE_MAX);
  // A string or an array of strings.
  bool texts(const char* name, std::vector<std::string>& out, size_t max_count, size_t max_bytes);
  bool ids(const char* name, std::vector<int32_t>& out, size_t max_count, size_t vocabulary);
  const Json* object(const char* name);
  const Json* array(const char* name);

  // Known, and without effect.
  void accept(std::initializer_list<const char*> names);
  // Refuses the fields that would change the answer and are not offered.
  void refuse(std::initializer_list<const char*> names);
  // Notes every field that nobody asked for.
  void finish();

  std::string path_of(const char* name) const;
  void wrong(const char* name, const std::string& wanted);
  void fail(const char* name, std::string code, std::string message);
  FieldNotes& notes() { return notes_; }

 private:
  const Json& object_;
  std::string path_;
  FieldNotes& notes_;
  std::unordered_set<std::string> known_;
};

// The whole number in a JSON value: 5 and 5.0, not true, not 5.5.
std::optional<int64_t> whole_number(const Json& value);

// The body of a request: strict JSON with the last duplicate winning and lone surrogate escapes as U+FFFD.
Outcome<Json> parse_body(std::string& body, int max_depth);

}  // namespace nautile::serve
