// What this machine can do: read bandwidth of its memory, peak of its multiply-add units, read rate of a disk.
//
// Measurements, so two calls differ; each says how it was done. `gbs` are 1e9 bytes a second.
// Thread-safety: one caller at a time: a measurement uses every thread of the pool it is given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "sys/threads.h"

namespace nautile {

// The middle of repeated measurements. Precondition: there is one.
double median(std::vector<double> values);

// What one memory node's workers read of it.
struct NodeRate {
  int node = 0;    // the system's number
  double gbs = 0;  // 0 where it has no worker
};
struct BandwidthProbe {
  double gbs = 0;                    // all passes of the best way together: what memory gives on average, pauses included
  double low_gbs = 0, high_gbs = 0;  // the slowest and the fastest of them
  int streams = 0;                   // a thread, of the best way
  bool fetched = false;              // whether its lines were asked for early
  int threads = 0;
  size_t bytes = 0;  // of the buffer that was read
  // All nodes read at once, so what they share they share here; of the middle pass, up to a node's last worker.
  std::vector<NodeRate> nodes;
};
// Keeps its buffer between measurements, so that short ones may stand between other work.
class ReadProbe {
 public:
  ReadProbe();
  ~ReadProbe();
  // Reads a buffer of `bytes` (at least 64 MiB; well above the caches to mean memory; the first call's stays) once in each way
  // (1, 2, 4 and 8 sequential streams a thread; 1 and 2 whose lines are asked for early), then, for the rest of `seconds` and
  // three times at least, in the way that has been fastest in those rounds, this call's and all before. Only the latter
  // passes count: the best of several noisy figures would be higher than what any way sustains. kResourceExhausted when the
  // buffer cannot be had. The pool has as many threads in every call.
  Result<BandwidthProbe> measure(ThreadPool& pool, size_t bytes, double seconds);

 private:
  struct Way {
    int streams;     // a thread
    bool fetched;    // lines asked for early
    double seconds;  // of its rounds
  };
  // A pass over the buffer: its seconds. `ends`: [threads], when each was done.
  double pass(ThreadPool& pool, const Way& way, std::vector<double>& ends);
  Status make(ThreadPool& pool, size_t bytes);
  std::vector<Way> ways_;
  std::shared_ptr<uint64_t> buffer_;
  size_t share_ = 0;  // words a thread
};
// One measurement.
Result<BandwidthProbe> probe_read_bandwidth(ThreadPool& pool, size_t bytes, double seconds);

struct PeakRow {
  std::string name;      // "fp32 FMA 256 bit", "BF16 dot 512 bit", "int8 dot 512 bit", "BF16 matrix unit", ...
  const char* isa = "";  // the lowest level of kernels (kernels/registry.h) that has it: "avx2", "avx512", "amx"; "ref"
  double tflops = 0;     // 1e12 operations a second, all threads, the best pass; a multiply-add counts 2
};
// Each kind of multiply-add that this CPU has, in registers alone, each for about `seconds`.
std::vector<PeakRow> probe_peak(ThreadPool& pool, double seconds);

// The most that kernels of a level can reach: by products of floats or BF16, and by those of bytes or these.
struct Peaks {
  double float_tflops = 0, byte_tops = 0;
};
Peaks peaks_of(const std::vector<PeakRow>& rows, std::string_view isa);

struct DiskProbe {
  double gbs = 0;
  size_t bytes = 0;
  bool direct = false;  // past the page cache; otherwise the figure may be the cache's
};
// Reads the file at `path` from its start in 8 MiB pieces for about `seconds`, or to its end. kNotFound, kIo,
// kInvalidArgument (it is empty) or kResourceExhausted (no memory for a piece), with the path.
Result<DiskProbe> probe_disk(const std::string& path, double seconds);

// Bytes of memory that this process may have and that are free for use now, by the machine and by the limits of its
// control group; 0 when the system does not say.
struct MemoryFound {
  size_t total_bytes = 0, available_bytes = 0;
};
MemoryFound probe_memory();

// The CPU's own name, or "unknown CPU".
std::string cpu_name();

}  // namespace nautile
