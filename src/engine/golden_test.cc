// The forward pass against logits that an independent implementation computed (tests/oracle): exact and with every
// rounding of the official code, one-shot on each instruction set, and the MTP block.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "engine/npy.h"
#include "kernels/registry.h"
#include "model/forward.h"

using namespace nautile;

namespace {

struct Golden {
  std::unique_ptr<FileSystem> files = real_files();
  std::string dir;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Weights> weights;
  ModelConfig config;
  std::vector<int32_t> tokens;
  Json bounds;
  ThreadPool pool{2};

  explicit Golden(const std::string& name) : dir(std::string(NAUTILE_SOURCE_DIR "/tests/golden/logits/") + name) {
    config = parse_config(read("config.json"), "config.json").value();
    checkpoint = std::make_unique<Checkpoint>(open_checkpoint(*files, dir).value());
    weights = std::make_unique<Weights>(load_weights(*checkpoint, config).value());
    const Json ids = parse_json(read("tokens.json"), "tokens.json").value();
    for (const Json& id : ids) tokens.push_back(id.get<int32_t>());
    bounds = parse_json(read("golden.json"), "golden.json").value();
  }
  std::string read(const std::string& name) { return files->read(join_path(dir, name), 1 << 26).value(); }
  FloatMatrix logits(const std::string& name) { return parse_npy(read(name), name).value(); }
};

struct Comparison {
  std::vector<double> errors;  // of each row, sorted: largest difference over largest value
  size_t same_argmax = 0;
};

Comparison compare(std::span<const float> got, const FloatMatrix& expected) {
  Comparison c;
  for (size_t t = 0; t < expected.rows; ++t) {
    const auto a = got.subspan(t * expected.cols, expected.cols);
    const std::span<const float> b(expected.values.data() + t * expected.cols, expected.cols);
    double difference = 0, size = 0;
    for (size_t i = 0; i < b.size(); ++i) {
      difference = std::max(difference, std::fabs(static_cast<double>(a[i]) - b[i]));
      size = std::max(size, std::fabs(static_cast<double>(b[i])));
    }
    c.errors.push_back(difference / size);
    c.same_argmax +=
        std::max_element(a.begin(), a.end()) - a.begin() == std::max_element(b.begin(), b.end()) - b.begin();
  }
  std::sort(c.errors.begin(), c.errors.end());
  return c;
}

}  // namespace

TEST_CASE("exact numerics equal the independent forward pass on every instruction set") {
  for (const char* name : {"tiny", "tiny_csa"}) {
    Golden g(name);
    const FloatMatrix expected = g.logits("logits_exact.npy");
    for (const std::string& isa : available_isas()) {
      Forward forward(*g.weights, Numerics::kExact, *find_kernels(isa).value(), g.pool);
      SequenceState state(forward.layout());
      const BatchItem item{&state, g.tokens};
      const Comparison c = compare(forward({&item, 1}, Logits::kAll).value().logits, expected);
      CHECK_MESSAGE(c.errors.back() < g.bounds["exact_row_error_max"].get<double>(), name << " " << isa);
      CHECK(c.same_argmax == expected.rows);
    }
  }
}

TEST_CASE("reference numerics follow the official roundings") {
  // A flipped rounding grows with depth, so the sharp comparison is the model of one layer; the deeper one is held to
  // the spread of two float widths of the same code (tests/oracle/README.md).
  // Weights in rows on every instruction set, then in tiles where that has them.
  std::vector<std::pair<std::string, bool>> ways;
  for (const std::string& isa : available_isas()) ways.push_back({isa, false});
  for (const std::string& isa : available_isas()) ways.push_back({isa, true});
  for (const auto& [isa, tiles] : ways) {
    Golden g("tiny_csa");
    const Kernels* kernels = find_kernels(isa).value();
    const Weights weights =
        load_weights(*g.checkpoint, g.config, {tiles ? kernels : nullptr, policy_of(Numerics::kReference)}).value();
    Forward forward(weights, Numerics::kReference, *kernels, g.pool);
    SequenceState state(forward.layout());
    const BatchItem item{&state, g.tokens};
    const Comparison c = compare(forward({&item, 1}, Logits::kAll).value().logits, g.logits("logits_reference.npy"));
    const auto sharp =
        std::lower_bound(c.errors.begin(), c.errors.end(), g.bounds["reference_row_error_sharp"].get<double>());
    CHECK(static_cast<double>(sharp - c.errors.begin()) >=
          g.bounds["reference_rows_sharp_min"].get<double>() * static_cast<double>(c.errors.size()));
  }
  Golden g("tiny");
  Forward forward(*g.weights, Numerics::kReference, *find_kernels("auto").value(), g.pool);
  SequenceState state(forward.layout());
  const BatchItem item{&state, g.tokens};
  const Comparison c = compare(forward({&item, 1}, Logits::kAll).value().logits, g.logits("logits_reference.npy"));
  CHECK(c.errors[c.errors.size() / 2] < g.bounds["reference_row_error_median_max"].get<double>());
}

TEST_CASE("the MTP block equals the independent one, in one piece and token by token") {
  Golden g("tiny_csa");
  const FloatMatrix expected = g.logits("logits_mtp_exact.npy");
  Forward forward(*g.weights, Numerics::kExact, *find_kernels("auto").value(), g.pool);
  SequenceState state(forward.layout());
  const BatchItem item{&state, g.tokens};
  const ForwardOutput main = forward({&item, 1}, Logits::kNone).value();
  const size_t width = main.streams.size() / g.tokens.size();
  const std::vector<float> streams(main.streams.begin(), main.streams.end());
  const BatchItem next{&state, std::span(g.tokens).subspan(1)};
  const ForwardOutput draft =
      forward.draft({&next, 1}, std::span(streams).first(expected.rows * width), Logits::kAll).value();
  const Comparison c = compare(draft.logits, expected);
  CHECK(c.errors.back() < 1e-4);
  CHECK(c.same_argmax == expected.rows);

  const std::vector<float> whole(draft.logits.begin(), draft.logits.end());
  SequenceState again(forward.layout());
  for (size_t t = 0; t < expected.rows; ++t) {
    const BatchItem one{&again, std::span(g.tokens).subspan(t + 1, 1)};
    const ForwardOutput out =
        forward.draft({&one, 1}, std::span(streams).subspan(t * width, width), Logits::kAll).value();
    REQUIRE(std::equal(out.logits.begin(), out.logits.end(),
                       whole.begin() + static_cast<std::ptrdiff_t>(t * expected.cols)));
  }
}
