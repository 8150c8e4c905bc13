// Model and Session: a DeepSeek-V4 directory opened for use inside another program, and a conversation with it.
//
//   auto model = nautile::Model::open("/models/DeepSeek-V4-Flash");
//   nautile::Session session(**model, "You are brief.");
//   auto answer = session.ask("What is 48 + 75?");
//
// Link nautile_engine. Thread-safety: a Model may be shared by threads; a Session belongs to one at a time, and many
// sessions may use one model at once: their answers are computed in one batch. A Model must outlive its sessions and
// whatever its engine generates. Source: design sections 3 and 4.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nautile/engine.h"

namespace nautile {

struct ModelOptions {
  std::string isa = "auto";                      // kernels: auto, ref, avx2, avx512, amx
  std::string numerics = "fast";                 // fast, reference, exact
  int threads = 0;                               // 0: one for each usable core
  int64_t max_sequences = 32;                    // answered at once
  uint64_t state_bytes = 0;                      // for the sequences' states; 0: from the machine's free memory
  uint64_t cache_bytes = 0;                      // for the prefix cache; 0: from the machine's free memory
  std::string disk_directory;                    // where prefixes outlive the process; empty: nowhere
  uint64_t disk_bytes = 0;                       // its budget
  bool speculation = true;                       // draft with the MTP block where that pays
  std::function<void(const std::string&)> warn;  // one line each, from any thread
};

class Model {
 public:
  // Reads, checks and arranges the directory's checkpoint and starts the engine. Errors name file, tensor and field:
  // kInvalidArgument (an option, a field of config.json), kNotFound, kCorrupt, kUnsupported, kIo; kResourceExhausted gives
  // the memory plan that does not fit.
  static Result<std::unique_ptr<Model>> open(const std::string& directory, const ModelOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Token ids in, token events out: for everything that a Session does not do.
  Engine& engine();
  int64_t context_tokens() const;
  size_t vocabulary() const;
  // Text to ids and back. With `specials`, the literals of the chat format's markers become those markers: never for
  // foreign text. kResourceExhausted: more than 2 GiB of text; kInvalidArgument: an id outside the vocabulary.
  Result<std::vector<TokenId>> encode(std::string_view text, bool specials = false) const;
  Result<std::string> decode(std::span<const TokenId> ids) const;

 private:
  friend class Session;
  struct Parts;
  explicit Model(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

enum class Thinking { kNone, kLow, kHigh, kMax };  // kLow: checkpoints of 0731 and later

struct AskOptions {
  Thinking thinking = Thinking::kHigh;
  SamplingParams sampling;        // a seed of 0 is a seed like any other
  int64_t max_tokens = 0;         // of the answer, reasoning included; 0: what the context leaves
  std::vector<std::string> stop;  // content ends before any of these
};

struct Answer {
  std::string reasoning, content;
  bool complete = false;  // the model ended its turn: neither max_tokens nor the caller cut it
  RequestRecord record;   // tokens, cache hit, times
};

class Session {
 public:
  // `system`: instructions that stand before the conversation; may be empty.
  explicit Session(Model& model, const std::string& system = {});
  ~Session();
  Session(Session&&) noexcept;

  // Adds the text to the conversation and answers it. on_text gets each piece as it comes, on this thread; when it
  // returns false the answer ends there. An answer becomes part of the conversation; after an error the text does not.
  // kInvalidArgument: an option; kUnsupported: a mode that the checkpoint lacks; kResourceExhausted: the context is
  // full, or the engine's queue.
  Result<Answer> ask(const std::string& text, const AskOptions& options = {},
                     const std::function<bool(std::string_view piece, bool reasoning)>& on_text = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nautile
