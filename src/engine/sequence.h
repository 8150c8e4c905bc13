// Sequence: one generation as the engine's thread sees it, from submission to its last token.
//
// Thread-safety: the engine's thread, and during sampling the one worker that draws its tokens.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cache/prefix_id.h"
#include "cache/sequence_state.h"
#include "engine/delivery.h"
#include "engine/speculation.h"
#include "engine/sampler.h"

namespace nautile {

struct Sequence {
  uint64_t id = 0;
  GenerateRequest request;
  std::shared_ptr<Delivery> delivery;
  RequestRecord record;

  std::vector<TokenId> tokens;  // prompt and output; never reallocated once submitted
  size_t prompt_size = 0;
  CacheScope scope, cache_owner;
  bool asked_disk = false;               // whether the disk tier has been asked for its prompt
  int64_t max_tokens = 0;                // of output, clamped to the context
  std::unique_ptr<SequenceState> state;  // while admitted; holds a prefix of `tokens`
  int64_t granted_tokens = 0;            // that the memory plan has counted for it
  uint64_t granted_bytes = 0;

  // Drawing.
  SamplingParams draft_sampling;  // the request's, without logprobs
  TokenHistory history;
  bool needs_history = false;
  std::vector<uint32_t> mask;       // scratch of min_tokens
  std::vector<TokenId> draft;       // proposed to follow tokens.back()
  std::vector<TokenEvent> drawn;    // of this step: the accepted drafts' tokens and one more
  std::vector<PromptScore> scores;  // of the prompt
  size_t draft_rows = 0;            // of `draft` that were verified in this step
  Acceptance acceptance;
  Status failure;  // of drawing

  std::optional<Snapshot> turn_end;  // at the last block end that decoding passed
  std::optional<Snapshot> canary;    // what the cache said; compared when this sequence gets there

  double submitted_s = 0, phase_since_s = 0;

  int64_t output() const { return static_cast<int64_t>(tokens.size() - prompt_size); }
  // Tokens that are not in the state yet; 1 while decoding.
  size_t pending() const { return tokens.size() - static_cast<size_t>(state->length()); }
  bool decoding() const { return pending() == 1 && tokens.size() > prompt_size; }
};

}  // namespace nautile
