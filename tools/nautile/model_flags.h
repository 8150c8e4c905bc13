// Flags that several verbs share: which model, how to load and compute, how to sample.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/chat_session.h"
#include "engine/engine.h"
#include "verbs.h"

namespace nautile {

struct ModelFlags {
  std::string directory;  // empty: nano, the model that ships with the program
  LoadOptions options;
  std::string numerics = "fast";
  bool quiet = false;  // no progress of loading; what is not as asked for is still said
  LoadProgressFunction watch = nullptr;  // is told of the progress too

  void add(CLI::App& verb);
  // Opens the model; the directory in use is left in `directory`.
  Result<std::unique_ptr<LoadedModel>> load(FileSystem& files);
};

// --repacked and what goes with it.
void add_repacked_flags(CLI::App& verb, std::string& repacked, bool& compare);

// What `chat` and `run` let a person choose of a reply.
struct ReplyFlags {
  std::string mode = "high";
  std::string profile = "auto";
  std::optional<double> temperature, top_p;
  std::optional<uint64_t> seed;
  ReplyOptions options;

  void add(CLI::App& verb);
  // Fills in the model's own defaults and, unless given, a fresh seed.
  Result<ReplyOptions> resolve(const LoadedModel& model) const;
};

// The engine of a verb that answers one person.
EngineOptions one_reply_at_a_time();

// "non", "low", "high", "max" (and the long names non_think, think_high, ...).
Result<ReasoningMode> parse_mode(const std::string& name);

// The directory of nano: ./models/nano, beside the build tree, or where the package puts it. kNotFound says where it
// looked.
Result<std::string> find_nano(FileSystem& files);

// One line on a terminal that shows how far a long prompt has come; nothing when stderr is no terminal.
class PrefillBar {
 public:
  void show(int64_t done, int64_t total);
  void clear();

 private:
  bool shown_ = false;
};

// "41 prompt tokens (12 cached) at 1,900/s, 23 tokens at 310/s"
std::string rates_line(const Reply& reply);

}  // namespace nautile
