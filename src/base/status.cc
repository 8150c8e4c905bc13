// Text forms of Status.
#include "base/status.h"

namespace nautile {

const char* code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kCorrupt:
      return "corrupt data";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kResourceExhausted:
      return "does not fit";
    case Code::kCancelled:
      return "cancelled";
    case Code::kIo:
      return "input/output error";
    case Code::kInternal:
      return "internal error";
  }
  return "unknown";
}

std::string Status::message() const {
  std::string text = std::string(code_name(code_));
  if (!what_.empty()) text += ": " + what_;
  if (!where_.empty()) text += "\n  where: " + where_;
  if (!fix_.empty()) text += "\n  to do: " + fix_;
  return text;
}

}  // namespace nautile
