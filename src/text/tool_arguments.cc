// Streams, repairs and unwraps the arguments of a call.
#include "text/tool_arguments.h"

#include "text/exact_json.h"

namespace nautile {
namespace {

std::string json_string_of(std::string_view text) {
  return python_json(Json(std::string(text)));
}

// The escaped text without its quotes. Precondition: valid UTF-8 in whole code points.
std::string escaped(std::string_view text) {
  const std::string with_quotes = json_string_of(text);
  return with_quotes.substr(1, with_quotes.size() - 2);
}

bool allows_only_strings(const Json* schema) {
  if (schema == nullptr || !schema->is_object()) return false;
  const auto type = schema->find("type");
  if (type == schema->end()) return false;
  return *type == "string" || (type->is_array() && type->size() == 1 && (*type)[0] == "string");
}

bool is_json_string(std::string_view json) {
  const auto begin = json.find_first_not_of(" \t\r\n");
  return begin != std::string_view::npos && json[begin] == '"';
}

}  // namespace

void ToolArguments::begin(const Tool* tool) {
  properties_ = nullptr;
  if (tool != nullptr && tool->parameters.is_object()) {
    const auto found = tool->parameters.find("properties");
    if (found != tool->parameters.end() && found->is_object()) properties_ = &*found;
  }
  first_ = true;
  wrapper_ = wrapper_held_ = false;
  buffer_.clear();
  gate_ = {};
}

const Json* ToolArguments::property(const std::string& key) const {
  if (properties_ == nullptr) return nullptr;
  const auto found = properties_->find(key);
  return found == properties_->end() ? nullptr : &*found;
}

void ToolArguments::write_key(const std::string& key, std::string& out) {
  out += first_ ? "{" : ", ";
  first_ = false;
  out += json_string_of(key) + ": ";
}

void ToolArguments::release_wrapper(std::string& out) {
  write_key(key_, out);
  out += is_string_ || !is_json(buffer_) ? json_string_of(buffer_) : buffer_;
  wrapper_held_ = false;
}

void ToolArguments::begin_value(std::string key, bool is_string, std::string& out) {
  if (wrapper_held_) release_wrapper(out);
  std::string valid;
  gate_.push(key, valid);
  gate_.finish(valid);
  key_ = std::move(valid);
  is_string_ = is_string;
  buffer_.clear();
  wrapper_ = first_ && (key_ == "arguments" || key_ == "input") && properties_ != nullptr && property(key_) == nullptr;
  streams_ = is_string && !wrapper_;
  if (streams_) {
    write_key(key_, out);
    out += '"';
  }
}

void ToolArguments::value(std::string_view bytes, std::string& out) {
  if (!streams_) {
    gate_.push(bytes, buffer_);
    return;
  }
  std::string valid;
  gate_.push(bytes, valid);
  out += escaped(valid);
}

void ToolArguments::end_value(std::string& out) {
  std::string rest;
  gate_.finish(rest);
  if (streams_) {
    out += rest + '"';
    return;
  }
  buffer_ += rest;
  if (wrapper_) {
    wrapper_held_ = true;
    return;
  }
  write_key(key_, out);
  const bool keep = is_json(buffer_) && (is_json_string(buffer_) || !allows_only_strings(property(key_)));
  out += keep ? buffer_ : json_string_of(buffer_);
}

bool ToolArguments::unwraps() const {
  const auto members = python_members(buffer_, "arguments");
  if (!members.ok()) return false;
  for (const Argument& member : members.value()) {
    if (property(member.name) == nullptr) return false;
  }
  return true;
}

void ToolArguments::end(std::string& out) {
  if (wrapper_held_ && unwraps()) {
    out += buffer_;
    return;
  }
  if (wrapper_held_) release_wrapper(out);
  out += first_ ? "{}" : "}";
}

}  // namespace nautile
