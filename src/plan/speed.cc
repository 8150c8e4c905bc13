// The performance model.
#include "plan/speed.h"

#include <algorithm>
#include <cmath>

namespace nautile::plan {
namespace {

constexpr double kOverlap = 0.5;         // of the smaller of memory and compute time that is not hidden
constexpr double kHiddenDep = 0.5;       // of dispatch and combine, hidden behind the other half of the batch
constexpr int64_t kPrefillChunk = 4096;  // tokens that share one pass over streamed weights
constexpr double kHostChunk = 512;       // the same on our own CPU path: the engine's chunk
constexpr double kFastLinkGbs = 100;     // NVLink and its like
constexpr double kSlowestPeak = 1e9;     // keeps a missing peak from dividing by zero

struct Peaks {
  double fp4, fp8, bf16;  // FLOP/s
};

// GGUF formats have no matrix unit: they are expanded to BF16 first.
bool is_gguf(WeightFormat format) {
  return format >= WeightFormat::kQ8_0;
}

Peaks peaks(const Hardware& device, WeightFormat format) {
  Peaks peak;
  peak.bf16 = std::max(device.bf16_tflops * 1e12, kSlowestPeak);
  if (is_gguf(format) || format == WeightFormat::kBf16) return {peak.bf16, peak.bf16, peak.bf16};
  peak.fp8 = device.fp8_tflops > 0 ? device.fp8_tflops * 1e12 : peak.bf16;
  const bool fp4 = device.fp4_tflops > 0 && format != WeightFormat::kFp8;
  peak.fp4 = fp4 ? device.fp4_tflops * 1e12 : peak.fp8;
  return peak;
}

double coverage(const ModelConfig& config, double tokens, double correlation) {
  const double independent = 1 + (tokens - 1) * (1 - correlation);
  return 1 - std::pow(1 - static_cast<double>(config.experts_per_token) / config.routed_experts, independent);
}

double accepted(double acceptance, int draft) {
  double sum = 0;
  for (int i = 0; i <= draft; ++i) sum += std::pow(acceptance, i);
  return sum;
}

// Operations of the attention core and the indexer for one token at a depth.
struct Core {
  double attention, index;
};
Core core(const Arithmetic& model, int64_t tokens) {
  const Operations ops = raw_operations(model, tokens);
  return {static_cast<double>(ops.csa + ops.hca + ops.swa), static_cast<double>(ops.index)};
}

double compute_seconds(const Arithmetic& model, const Peaks& peak, const Core& work, bool with_experts) {
  const double experts = with_experts ? 2.0 * static_cast<double>(model.gemm_expert) / peak.fp4 : 0;
  const double bf16 = static_cast<double>(model.gemm_bf16 - model.gemm_mhc);  // mHC is part of the fixed time
  return experts + 2.0 * static_cast<double>(model.gemm_fp8) / peak.fp8 + (2.0 * bf16 + work.attention) / peak.bf16 +
         work.index / peak.fp4;
}

double link_bytes_per_second(const Machine& machine, double use) {
  const Hardware& device = machine.device;
  const double gbs = machine.devices <= device.domain ? device.link_gbs : device.scale_out_gbs;
  return std::max(gbs, 1.0) * 1e9 * use;
}

double host_bandwidth(const Machine& machine) {
  const Hardware& host = machine.host ? *machine.host : machine.device;
  return host.bandwidth_tbs * 1e12 * std::max(1, machine.host ? machine.sockets : machine.devices);
}

// The smaller of the two is half hidden.
void overlap_half(Step& step, double memory, double compute) {
  step.memory = memory >= compute ? memory : kOverlap * memory;
  step.compute = memory >= compute ? kOverlap * compute : compute;
}

void finish(Step& step, const Tuning& tuning) {
  step.total = step.fixed + step.memory + step.compute + step.communication + step.storage + step.draft;
  const double slower = tuning.stack_factor;
  for (double* part :
       {&step.fixed, &step.memory, &step.compute, &step.communication, &step.storage, &step.draft, &step.total}) {
    *part *= slower;
  }
}

Step device_step(const Load& load, const Machine& machine, Layout layout, double batch, int draft,
                 const Tuning& tuning) {
  const Arithmetic& model = *load.model;
  const double g = machine.devices, tokens = batch * (1 + draft), layers = model.config.layers;
  const bool tp = layout == Layout::kTp;
  Step step;
  step.tokens_per_sequence = accepted(tuning.acceptance, draft);
  step.coverage = coverage(model.config, tokens, tuning.route_correlation);
  const double skew = step.coverage < 0.98 && machine.devices > 1 ? tuning.imbalance : 1;
  const double experts = static_cast<double>(routed_bytes(model, load.format)) / g * step.coverage * skew;
  const double dense = static_cast<double>(dense_bytes_read(model, load.format)) / (tp ? g : 1);
  const double cache = (tp ? batch : batch / g) * static_cast<double>(kv_read_bytes(model, load.context, load.kv));
  const double bandwidth = machine.device.bandwidth_tbs * 1e12 * tuning.bandwidth_use;
  const double memory = (experts + dense + cache) / bandwidth;
  const Peaks peak = peaks(machine.device, load.format);
  const double compute =
      tokens / g * compute_seconds(model, peak, core(model, load.context), true) / tuning.decode_compute_use;
  double talk = 0;
  if (machine.devices > 1) {
    const double link = link_bytes_per_second(machine, tuning.link_use), width = model.config.hidden;
    if (tp) {
      talk = layers * 2 * (2 * (g - 1) / g * tokens * width * 2 / link + machine.device.sync_us * 1e-6);
    } else {
      const double rows = tokens / g * model.config.experts_per_token * width * (g - 1) / g;
      const double dispatch_byte = peak.fp4 > peak.fp8 ? 0.5 : 1;
      // Two exchanges; each waits 8 us where an all-reduce waits 6.
      talk = layers * (rows * (dispatch_byte + 2) / link + 2 * machine.device.sync_us * 8 / 6 * 1e-6);
    }
  }
  step.fixed = layers * tuning.fixed_us * 1e-6;
  step.draft = draft * (1.5 * (step.fixed + talk + 0.3 * memory) / layers +
                        static_cast<double>(model.head_bytes) / (tp ? g : 1) / bandwidth);
  step.communication = talk * (tp ? 1 : kHiddenDep);
  overlap_half(step, memory, compute);
  finish(step, tuning);
  return step;
}

// Where the routed experts are when the memory holds only a part of them.
struct Split {
  double device = 0, host = 1, storage = 0;  // shares
};

// Shares of the routed experts by the room that `batch` caches leave, filled from the fastest memory on.
Split split_experts(const Load& load, const Machine& machine, double batch) {
  const Arithmetic& model = *load.model;
  const double experts = static_cast<double>(routed_bytes(model, load.format));
  const double rest = static_cast<double>(weight_bytes(model, load.format)) - experts;
  const double caches =
      batch * static_cast<double>(kv_bytes(model, load.context, load.kv) + compressor_state_bytes(model));
  auto usable = [&](const Hardware& device) { return usable_bytes(machine, device); };
  Split split;
  split.host = 0;
  double left = 1;
  auto fill = [&](double room) {
    const double share = std::clamp(room / experts, 0.0, left);
    left -= share;
    return share;
  };
  if (machine.placement == Placement::kHybrid) {
    split.device = fill(usable(machine.device) * machine.devices - rest - caches);
    split.host = fill(usable(*machine.host) * machine.sockets);
  } else if (machine.placement == Placement::kCpu) {
    split.host = fill(usable(machine.device) * machine.devices - rest - caches);
  } else {
    split.device = fill((usable(machine.device) - caches) * machine.devices - rest);
  }
  split.storage = left < 1e-9 ? 0 : left;
  return split;
}

Step host_step(const Load& load, const Machine& machine, double batch, int draft, const Tuning& tuning) {
  const Arithmetic& model = *load.model;
  const bool hybrid = machine.placement == Placement::kHybrid;
  const double tokens = batch * (1 + draft), layers = model.config.layers;
  Step step;
  step.tokens_per_sequence = accepted(tuning.acceptance, draft);
  step.coverage = coverage(model.config, tokens, tuning.route_correlation);
  const Split split = split_experts(load, machine, batch);
  const double experts = static_cast<double>(routed_bytes(model, load.format)) * step.coverage;
  const double dense = static_cast<double>(dense_bytes_read(model, load.format));
  const double cache = batch * static_cast<double>(kv_read_bytes(model, load.context, load.kv));
  const double host_rate = host_bandwidth(machine) * tuning.host_bandwidth_use;
  const Hardware& host = hybrid ? *machine.host : machine.device;
  const double host_sockets = hybrid ? machine.sockets : machine.devices;
  const double host_flops = peaks(host, load.format).bf16 * host_sockets * tuning.host_compute_use;
  const double expert_ops = tokens * 2.0 * static_cast<double>(model.gemm_expert);
  double memory = (dense + cache + experts) / host_rate;
  if (hybrid) {
    const double device_rate = machine.device.bandwidth_tbs * 1e12 * tuning.bandwidth_use * machine.devices;
    memory = (dense + cache + experts * split.device) / device_rate + experts * (1 - split.device) / host_rate;
    const double compute =
        tokens * compute_seconds(model, peaks(machine.device, load.format), core(model, load.context), false) /
            tuning.decode_compute_use / machine.devices +
        expert_ops * (1 - split.device) / host_flops;
    overlap_half(step, memory, compute);
    // Every layer sends its rows to the host and takes the sum back.
    step.communication =
        layers * 2 * (tokens * model.config.hidden * 2 / (tuning.host_link_gbs * 1e9) + 10e-6) * (1 - split.device);
    step.fixed = layers * (tuning.fixed_us + tuning.host_fixed_us) * 1e-6;
  } else {
    // Our own kernels: products are made while the bytes stream past, so the longer of the two counts, for each kind of
    // work on its own, since one needs another's outputs.
    const Operations ops = raw_operations(model, load.context);
    const auto longer = [&](double bytes, double operations) {
      const double read = bytes / host_rate, computed = operations / host_flops;
      (read >= computed ? step.memory : step.compute) += std::max(read, computed);
    };
    longer(dense, tokens * static_cast<double>(ops.weights) - expert_ops);
    longer(experts, expert_ops);
    longer(cache, tokens * static_cast<double>(ops.total() - ops.weights));
    step.fixed = layers * tuning.host_fixed_us * 1e-6;
  }
  if (split.storage > 0 && machine.ssd_read_gbs > 0) {
    // An expert is known only once its layer has routed, so the read is not hidden.
    step.storage = experts * split.storage / (machine.ssd_read_gbs * 1e9);
  }
  step.draft = draft * (1.5 * (step.fixed + step.communication + 0.3 * memory) / layers +
                        static_cast<double>(model.head_bytes) / host_rate);
  finish(step, tuning);
  return step;
}

}  // namespace

const char* layout_name(Layout layout) {
  return layout == Layout::kTp ? "tp" : "dep";
}

const char* placement_name(Placement placement) {
  switch (placement) {
    case Placement::kDevices:
      return "devices";
    case Placement::kCpu:
      return "CPU";
    case Placement::kHybrid:
      return "CPU + GPU hybrid";
  }
  return "unknown";
}

Tuning default_tuning(const PlanData& data, const Machine& machine) {
  Tuning tuning;
  const bool single = machine.device.device_class == DeviceClass::kUnified && machine.devices == 1;
  tuning.bandwidth_use = data.constant("bandwidth_use");
  tuning.decode_compute_use = data.constant(single ? "single_device_compute_use" : "decode_compute_use");
  tuning.prefill_compute_use = data.constant("prefill_compute_use");
  tuning.fixed_us = data.constant(single ? "single_device_fixed_us" : "fixed_us_per_layer");
  tuning.acceptance = data.constant("draft_acceptance");
  tuning.imbalance = data.constant("expert_imbalance");
  tuning.link_use = data.constant("link_use");
  tuning.route_correlation = data.constant("route_correlation");
  tuning.host_bandwidth_use =
      data.constant("cpu_bandwidth_use") * (machine.measured ? 1 : data.constant("cpu_read_share"));
  tuning.host_compute_use = data.constant("cpu_prefill_use");
  tuning.host_fixed_us = data.constant("cpu_fixed_us_per_layer");
  tuning.host_link_gbs = data.constant("host_link_gbs");
  tuning.stack_factor = data.constant("stack_tuned");
  return tuning;
}

const char* Step::bottleneck() const {
  const std::pair<double, const char*> parts[] = {{fixed, "fixed"},
                                                  {memory, "memory"},
                                                  {compute, "compute"},
                                                  {communication, "communication"},
                                                  {storage, "storage"}};
  return std::max_element(std::begin(parts), std::end(parts), [](auto& a, auto& b) { return a.first < b.first; })
      ->second;
}

Step decode_step(const Load& load, const Machine& machine, Layout layout, double batch, int draft,
                 const Tuning& tuning) {
  if (machine.placement != Placement::kDevices) return host_step(load, machine, batch, draft, tuning);
  Step step = device_step(load, machine, layout, batch, draft, tuning);
  const Split split = machine.ssd_read_gbs > 0 ? split_experts(load, machine, batch) : Split{1, 0, 0};
  if (split.storage > 0) {
    const double read = static_cast<double>(routed_bytes(*load.model, load.format)) * step.coverage * split.storage;
    step.storage = read / (machine.ssd_read_gbs * 1e9) * tuning.stack_factor;
    step.total += step.storage;
  }
  return step;
}

double prefill_rate(const Load& load, const Machine& machine, int64_t prompt_tokens, const Tuning& tuning) {
  const Arithmetic& model = *load.model;
  // Attention averaged over the prompt; the head runs once, not for every token.
  constexpr int kSamples = 64;
  Core mean{0, 0};
  for (int i = 0; i < kSamples; ++i) {
    const Core at = core(model, prompt_tokens * (2 * i + 1) / (2 * kSamples));
    mean.attention += at.attention / kSamples;
    mean.index += at.index / kSamples;
  }
  const bool on_device = machine.placement != Placement::kCpu;
  const Peaks peak = peaks(machine.device, load.format);
  const double head = 2.0 * static_cast<double>(model.head_params);
  const double experts = 2.0 * static_cast<double>(model.gemm_expert);
  if (machine.placement == Placement::kDevices && machine.ssd_read_gbs == 0) {
    double seconds = (compute_seconds(model, peak, mean, true) - head / peak.bf16) / tuning.prefill_compute_use;
    if (machine.devices > 1 && machine.device.link_gbs < kFastLinkGbs) {
      // Over PCIe or Ethernet the all-reduces are not hidden; the faster links' are in prefill_compute_use.
      const double g = machine.devices, row = 2.0 * model.config.hidden;
      seconds += g * model.config.layers * 2 * 2 * (g - 1) / g * row / link_bytes_per_second(machine, tuning.link_use);
    }
    return 1 / seconds / tuning.stack_factor;
  }
  const Hardware& host = machine.host ? *machine.host : machine.device;
  const double sockets = machine.host ? machine.sockets : machine.devices;
  const double host_flops = peaks(host, load.format).bf16 * sockets * tuning.host_compute_use;
  const Split split = split_experts(load, machine, 1);
  double seconds = 0;  // a token
  if (machine.placement == Placement::kCpu) {
    // As in decode: the longer of reading and computing, for each kind of work.
    const double chunk = std::min(kHostChunk, static_cast<double>(prompt_tokens));
    const double read = host_bandwidth(machine) * tuning.host_bandwidth_use * chunk;
    const double dense =
        2.0 * static_cast<double>(model.gemm_fp8 + model.gemm_bf16) - head + mean.attention + mean.index;
    const double touched = coverage(model.config, chunk, tuning.route_correlation);
    seconds = std::max(dense / host_flops, static_cast<double>(dense_bytes_read(model, load.format)) / read) +
              std::max(experts / host_flops, static_cast<double>(routed_bytes(model, load.format)) * touched / read);
  } else if (on_device && machine.placement == Placement::kHybrid) {
    seconds =
        (compute_seconds(model, peak, mean, false) - head / peak.bf16) / tuning.prefill_compute_use / machine.devices;
    seconds += experts * split.device / peak.fp4 / tuning.prefill_compute_use / machine.devices;
    // The host's share is computed there or streamed to the device once a chunk, whichever is faster.
    const double there = experts * (1 - split.device) / host_flops;
    const double bytes = static_cast<double>(routed_bytes(model, load.format)) * (1 - split.device);
    const double streamed = bytes / (tuning.host_link_gbs * 1e9) / kPrefillChunk +
                            experts * (1 - split.device) / peak.fp4 / tuning.prefill_compute_use;
    seconds += std::min(there, streamed);
  } else {
    seconds = (compute_seconds(model, peak, mean, true) - head / peak.bf16) / tuning.prefill_compute_use;
  }
  if (split.storage > 0 && machine.ssd_read_gbs > 0) {
    const double bytes = static_cast<double>(routed_bytes(model, load.format)) * split.storage;
    seconds += bytes / (machine.ssd_read_gbs * 1e9) /
               static_cast<double>(std::min(kPrefillChunk, std::max<int64_t>(1, prompt_tokens)));
  }
  return 1 / seconds / tuning.stack_factor;
}

double usable_bytes(const Machine& machine, const Hardware& device) {
  return device.memory_gb * 1e9 * machine.usable_fraction - machine.reserve_bytes;
}

Residence residence(const Load& load, const Machine& machine, Layout layout) {
  const Arithmetic& model = *load.model;
  const double total = static_cast<double>(weight_bytes(model, load.format));
  const bool with_draft = weight_bytes(model, load.format) > weight_bytes_without_draft(model, load.format);
  double experts = static_cast<double>(routed_bytes(model, load.format));
  const double cache = static_cast<double>(kv_bytes(model, load.context, load.kv) + compressor_state_bytes(model));
  const double g = machine.devices;
  Residence home;
  if (machine.placement == Placement::kHybrid) {
    const Split split = split_experts(load, machine, 1);
    home.device_weights = total - experts + experts * split.device;
    home.host_weights = experts * split.host;
    home.storage_weights = experts * split.storage;
    home.device_free = usable_bytes(machine, machine.device) * g - home.device_weights;
    home.host_free = usable_bytes(machine, *machine.host) * machine.sockets - home.host_weights;
    home.fits = home.device_free >= cache && home.host_free >= 0 && (split.storage == 0 || machine.ssd_read_gbs > 0);
    return home;
  }
  if (machine.placement == Placement::kCpu || machine.ssd_read_gbs > 0) {
    const Split split = machine.ssd_read_gbs > 0 ? split_experts(load, machine, 1) : Split{};
    home.storage_weights = machine.ssd_read_gbs > 0 ? experts * split.storage : 0;
    home.device_weights = (total - home.storage_weights) / g;
    home.device_free = usable_bytes(machine, machine.device) - home.device_weights;
    home.fits = home.device_free * (machine.placement == Placement::kCpu ? g : 1) >= cache;
    return home;
  }
  // Under dep every device holds the dense part whole.
  if (with_draft) experts += static_cast<double>(model.draft_expert_bytes);
  home.device_weights = layout == Layout::kTp ? total / g : experts / g + (total - experts);
  home.device_free = usable_bytes(machine, machine.device) - home.device_weights;
  home.fits = home.device_free >= cache;
  return home;
}

int64_t max_sequences(const Load& load, const Machine& machine, Layout layout) {
  const Residence home = residence(load, machine, layout);
  if (!home.fits) return 0;
  const Arithmetic& model = *load.model;
  const double cache = static_cast<double>(kv_bytes(model, load.context, load.kv) + compressor_state_bytes(model));
  const double g = machine.devices;
  if (machine.placement == Placement::kHybrid || machine.ssd_read_gbs > 0) {
    // Experts make room for caches as long as the next memory takes them.
    const double experts = static_cast<double>(routed_bytes(model, load.format));
    const double rest = static_cast<double>(weight_bytes(model, load.format)) - experts;
    const double below =
        machine.ssd_read_gbs > 0 ? experts : std::min(experts, usable_bytes(machine, *machine.host) * machine.sockets);
    const double room = usable_bytes(machine, machine.device) * g - rest - (experts - below);
    const bool each_device = machine.placement == Placement::kDevices;  // caches are replicated under tp
    return std::max<int64_t>(1, static_cast<int64_t>(std::floor(room / (cache * (each_device ? g : 1)))));
  }
  if (machine.placement == Placement::kCpu) return static_cast<int64_t>(std::floor(home.device_free * g / cache));
  const double each = std::floor(home.device_free / cache);
  return static_cast<int64_t>(layout == Layout::kTp ? each : each * g);
}

Operating operating_point(const Load& load, const Machine& machine, Layout layout, int64_t batch, int draft,
                          const Tuning& tuning) {
  Operating point{layout,
                  machine.devices,
                  draft,
                  batch,
                  decode_step(load, machine, layout, static_cast<double>(batch), draft, tuning),
                  0,
                  0};
  point.user_tps = point.step.tokens_per_sequence / point.step.total;
  point.device_tps = point.user_tps * static_cast<double>(batch) / machine.devices;
  return point;
}

namespace {

// Visits every (layout, draft, batch) that fits; `next` gives the batch after one.
template <class Next, class Visit>
void visit_points(const Load& load, const Machine& machine, const Tuning& tuning, const SearchLimits& limits, Next next,
                  Visit visit) {
  const bool one_layout = machine.placement != Placement::kDevices || machine.devices == 1;
  const bool has_draft = weight_bytes(*load.model, load.format) > weight_bytes_without_draft(*load.model, load.format);
  for (Layout layout : {Layout::kTp, Layout::kDep}) {
    if (one_layout && layout == Layout::kDep) continue;
    const int64_t most = std::min(limits.max_batch, max_sequences(load, machine, layout));
    for (int draft : limits.drafts) {
      if (draft > 0 && !has_draft) continue;
      // The largest batch that fits is always visited.
      for (int64_t batch = 1; batch <= most; batch = batch < most ? std::min(most, next(batch)) : most + 1) {
        const Operating point = operating_point(load, machine, layout, batch, draft, tuning);
        if (point.user_tps < limits.min_user_tps && batch > 1) break;
        visit(point);
      }
    }
  }
}

}  // namespace

std::vector<Operating> sweep(const Load& load, const Machine& machine, const Tuning& tuning,
                             const SearchLimits& limits) {
  std::vector<Operating> points;
  visit_points(
      load, machine, tuning, limits, [](int64_t batch) { return batch < 4 ? batch + 1 : batch + batch / 3; },
      [&](const Operating& point) { points.push_back(point); });
  return points;
}

std::vector<Operating> pareto(std::vector<Operating> points) {
  std::sort(points.begin(), points.end(), [](const Operating& a, const Operating& b) {
    return a.user_tps != b.user_tps ? a.user_tps > b.user_tps : a.device_tps > b.device_tps;
  });
  std::vector<Operating> front;
  double best = -1;
  for (const Operating& point : points) {
    if (point.device_tps <= best) continue;
    best = point.device_tps;
    front.push_back(point);
  }
  std::reverse(front.begin(), front.end());
  return front;
}

std::optional<Operating> best_point(const Load& load, const Machine& machine, const Tuning& tuning,
                                    const SearchLimits& limits) {
  std::optional<Operating> best, fastest;
  visit_points(
      load, machine, tuning, limits, [](int64_t batch) { return batch < 512 ? batch + 1 : batch + batch / 100; },
      [&](const Operating& point) {
        if (!fastest || point.user_tps > fastest->user_tps) fastest = point;
        if (point.user_tps >= limits.min_user_tps && (!best || point.device_tps > best->device_tps)) best = point;
      });
  return best ? best : fastest;
}

}  // namespace nautile::plan
