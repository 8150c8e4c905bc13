// The JSON object of one call's arguments, written parameter by parameter as the model prints them.
//
// String values stream; others are held until they are whole, since they may need repair: text that is not JSON, or not
// a string where the schema allows nothing else, becomes a JSON string. A single parameter "arguments" or "input" that
// the schema does not know and that holds the whole object is unwrapped. Thread-safety: none. Source: spec
// chat.md 5.2, 5.3.
#pragma once

#include <string>
#include <string_view>

#include "text/conversation.h"
#include "text/utf8.h"

namespace nautile {

class ToolArguments {
 public:
  // `tool` may be null (the model called a tool that does not exist) and must outlive the use.
  void begin(const Tool* tool);
  // Each appends to `out` the JSON that is now certain.
  void begin_value(std::string key, bool is_string, std::string& out);
  void value(std::string_view bytes, std::string& out);
  void end_value(std::string& out);
  void end(std::string& out);

 private:
  const Json* property(const std::string& key) const;
  void write_key(const std::string& key, std::string& out);
  void release_wrapper(std::string& out);
  bool unwraps() const;

  const Json* properties_ = nullptr;
  bool first_ = true;
  std::string key_;
  bool is_string_ = false, streams_ = false;
  std::string buffer_;
  Utf8Gate gate_;
  bool wrapper_ = false;       // the value being read may hold the whole object
  bool wrapper_held_ = false;  // such a value has been read and is not written yet
};

}  // namespace nautile
