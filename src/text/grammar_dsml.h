// The grammar of DSML tool calls, for the tools a request declares.
//
// A block is spelled exactly as V4's encoder prints calls; ｜DSML｜ is the control token alone, never text. Parameters
// come in any order, each once, the required ones all; strings raw with string="true", everything else as JSON with
// string="false". Thread-safety: belongs to one thread. Source: spec chat.md 4.2, api.md 11.
#pragma once

#include <memory>
#include <vector>

#include "text/conversation.h"
#include "text/grammar_schema.h"

namespace nautile {

struct ToolConstraint {
  std::vector<Tool> tools;          // those that may be called; for allowed_tools the allowed ones
  std::vector<bool> strict;         // [tools] or empty; elsewhere keywords that are not supported are ignored
  std::vector<std::string> places;  // [tools] or empty; where the tool's parameters stand in the request, for messages
  ToolChoice choice;
  bool parallel = true;
  TokenId dsml = -1;
};

namespace grammar {

// From before the block's first "<" to behind it. Appends the compilers of the tools' parameters, which hold the ignored
// keywords and must outlive the builder. Errors as in grammar_schema.h, and kInvalidArgument when no tool may be called.
Status add_tool_calls(const ToolConstraint& tools, Builder& builder, JsonPieces& pieces, const GrammarLimits& limits,
                      std::vector<std::unique_ptr<SchemaCompiler>>& compilers, StateId from, StateId to);

}  // namespace grammar
}  // namespace nautile
