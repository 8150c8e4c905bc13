// The V4 chat encoding: a conversation becomes prompt segments, and these become token ids.
//
// There is no template language: this is the release's own encoder, with its rules for merging, sorting and dropping.
// Everything a client wrote sits in segments that may not contain specials, so it cannot act as control tokens; for
// ordinary text the ids are the reference's. Thread-safety: pure functions. Source: spec chat.md 2, 3, 4, 6, 7.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "text/conversation.h"
#include "text/tokenizer.h"

namespace nautile {

enum class ReasoningMode { kNonThink, kThinkLow, kThinkHigh, kThinkMax };

// Which text a reasoning mode prints: that of the preview releases (April 2026) or of the official ones (0731, 0813).
enum class EncodingProfile { kPreview, kOfficial };

const char* name_of(ReasoningMode mode);       // "non_think", "think_low", ...
const char* name_of(EncodingProfile profile);  // "preview", "official"

struct EncodeOptions {
  ReasoningMode mode = ReasoningMode::kThinkHigh;
  EncodingProfile profile = EncodingProfile::kPreview;
  // Leave out the reasoning of turns before the last user message. Has no effect when tools are declared.
  bool drop_reasoning = true;
  // After a last assistant message that is not left open, begin another assistant turn (the reference prints nothing).
  bool reopen_after_assistant = false;
  // Tokenise client text as the reference does, literals of added tokens included. Unsafe with foreign text.
  bool literal_specials = false;
};

// kInvalidArgument if the profile does not offer the mode, or the conversation is empty or cannot be continued in this
// mode; kUnsupported for tool_choice required or named while thinking (that takes a grammar). encode() fails as
// Tokenizer::encode() too.
Result<std::vector<Segment>> render(const Conversation& conversation, const EncodeOptions& options);
Result<std::vector<TokenId>> encode(const Tokenizer& tokenizer, const Conversation& conversation,
                                    const EncodeOptions& options);

// Fill in the middle: BOS, prefix, hole, suffix (spec chat.md 7).
std::vector<Segment> render_fim(std::string prefix, std::string suffix);

// The segments' text, joined: for people and tests.
std::string text_of(std::span<const Segment> segments);

// The ids the format is made of.
struct ChatTokens {
  TokenId bos, eos, user, assistant, think_open, think_close, dsml;
  TokenId latest_reminder;  // -1 if the vocabulary lacks it

  // kUnsupported, naming the token, if the vocabulary lacks one of the seven.
  static Result<ChatTokens> find(const Tokenizer& tokenizer);
  // Ends generation: EOS, and the role tokens a model should never print.
  bool is_stop(TokenId id) const {
    return id == eos || id == bos || id == user || id == assistant || id == latest_reminder;
  }
};

}  // namespace nautile
