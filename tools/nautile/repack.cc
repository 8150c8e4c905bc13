// nautile repack: makes a checkpoint's repacked file, or holds one against its checkpoint.
#include <fmt/format.h>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "load_bar.h"
#include "model/inventory.h"
#include "model/repack_file.h"
#include "model/repack_load.h"
#include "model_flags.h"
#include "sys/clock.h"
#include "sys/machine.h"

namespace nautile {
namespace {

struct RepackFlags {
  std::string directory, out;
  int threads = 0;
  bool check = false, json = false, quiet = false;
};

Status repack(RepackFlags flags) {
  const std::unique_ptr<FileSystem> files = real_files();
  if (flags.directory.empty()) {
    NAUTILE_ASSIGN(flags.directory, find_nano(*files));
  }
  if (flags.out.empty()) flags.out = join_path(flags.directory, kRepackedName);
  if (flags.threads < 0 || flags.threads > 1024) {
    return {Code::kInvalidArgument, fmt::format("{} threads", flags.threads), "--threads",
            "give a number from 1 to 1024"};
  }
  ThreadPool pool(flags.threads == 0 ? usable_cores() : flags.threads);
  const std::string path = join_path(flags.directory, "config.json");
  NAUTILE_ASSIGN(const std::string text, files->read(path, 1 << 20));
  NAUTILE_ASSIGN(const ModelConfig config, parse_config(text, path));
  NAUTILE_ASSIGN(const Checkpoint checkpoint, open_checkpoint(*files, flags.directory));
  LoadBar bar(flags.quiet);
  const auto progress = [&](const LoadProgress& p) { bar.show(p); };
  const double begin = seconds_now();
  VerifyOptions verify_options;
  verify_options.pool = &pool;
  NAUTILE_RETURN_IF_ERROR(verify(checkpoint, config, verify_options));
  NAUTILE_ASSIGN(Weights rows, load_weights(checkpoint, config));
  if (!flags.check) {
    if (files->exists(flags.out)) {  // never over something that is not ours
      NAUTILE_ASSIGN(const MappedFile there, files->map(flags.out));
      if (!there.bytes().empty() && !is_repacked_file(there.bytes())) {
        return {Code::kInvalidArgument, "this is another kind of file and stays as it is", flags.out,
                "name another with --out"};
      }
    }
    NAUTILE_RETURN_IF_ERROR(RepackedFile::make(*files, flags.out, checkpoint, rows, &pool, progress));
  }
  const double made_s = seconds_now() - begin;
  NAUTILE_ASSIGN(const RepackedFile file, RepackedFile::open(*files, flags.out, checkpoint));
  if (flags.check) {
    NAUTILE_RETURN_IF_ERROR(file.check(&pool, progress));
    NAUTILE_RETURN_IF_ERROR(file.compare(rows, &pool, progress));
  }
  const double seconds = flags.check ? seconds_now() - begin : made_s;
  if (flags.json) {
    fmt::print(
        "{}\n",
        Json({{"file", flags.out}, {"bytes", file.bytes()}, {"seconds", seconds}, {"checked", flags.check}}).dump());
  } else if (flags.check) {
    fmt::print("{} holds this checkpoint's weights, to the bit: {}\n", flags.out,
               load_rate_text(file.bytes(), file.bytes(), seconds));
    if (file.times_differ()) {
      fmt::print(
          "The checkpoint's files have other times than when it was made: each start will compare all of it until\n"
          "`nautile repack` has made it again.\n");
    }
  } else {
    fmt::print("{}: {}\n", flags.out, load_rate_text(file.bytes(), file.bytes(), seconds));
  }
  return {};
}

}  // namespace

void add_repack(CLI::App& app, Run& run) {
  auto flags = std::make_shared<RepackFlags>();
  CLI::App* verb = app.add_subcommand("repack",
                                      "Writes a model's weights the way the kernels read them, for starts in seconds.\n"
                                      "  nautile repack /models/DeepSeek-V4-Flash\n"
                                      "  nautile serve /models/DeepSeek-V4-Flash --repacked auto\n"
                                      "The file is as large as the checkpoint, which is needed beside it.");
  verb->add_option("model", flags->directory, "model directory (default: nano, which ships with the program)");
  verb->add_option("--out,-o", flags->out,
                   fmt::format("file to write (default: {} in the model's directory)", kRepackedName));
  verb->add_flag("--check", flags->check,
                 "write nothing: hold the file and the checkpoint against each other, all of both");
  verb->add_option("--threads", flags->threads, "threads; 0 is one for each usable core")->capture_default_str();
  verb->add_flag("--json", flags->json, "print one JSON object");
  verb->add_flag("--quiet", flags->quiet, "no progress on stderr");
  verb->callback([flags, &run] {
    run = [flags] {
      const Status status = repack(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
