// The probe measures something plausible and refuses what it cannot measure. No speed is asserted.
#include "sys/probe.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>

using namespace nautile;

TEST_CASE("bandwidth and peak are positive, ordered and named") {
  ThreadPool pool(1);
  const auto bandwidth = probe_read_bandwidth(pool, 1, 0.01);
  REQUIRE(bandwidth.ok());
  const BandwidthProbe& b = bandwidth.value();
  CHECK(b.bytes >= (60u << 20));  // raised to at least 64 MiB, less the remainder of the split
  CHECK(b.gbs > 0);
  CHECK(b.low_gbs <= b.gbs);
  CHECK(b.gbs <= b.high_gbs);
  CHECK((b.streams == 1 || b.streams == 2 || b.streams == 4 || b.streams == 8));
  const auto rows = probe_peak(pool, 0.001);
  REQUIRE_FALSE(rows.empty());
  for (const PeakRow& row : rows) {
    CHECK(row.tflops > 0);
    CHECK_FALSE(row.name.empty());
  }
}

TEST_CASE("a level of kernels is held against the units that it has") {
  const std::vector<PeakRow> rows = {{"fp32 FMA 256 bit", "avx2", 1}, {"int8 pairs 256 bit", "avx2", 3},
                                     {"BF16 dot 512 bit", "avx512", 4}, {"int8 dot 512 bit", "avx512", 8},
                                     {"BF16 matrix unit", "amx", 20}};
  CHECK(peaks_of(rows, "ref").float_tflops == 1);
  CHECK(peaks_of(rows, "avx2").float_tflops == 1);
  CHECK(peaks_of(rows, "avx2").byte_tops == 3);
  CHECK(peaks_of(rows, "avx512").float_tflops == 4);
  CHECK(peaks_of(rows, "avx512").byte_tops == 8);
  CHECK(peaks_of(rows, "amx").float_tflops == 20);
  CHECK(peaks_of(rows, "amx").byte_tops == 20);
  CHECK(peaks_of({{"fp32 multiply-add", "ref", 1}}, "ref").byte_tops == 1);
}

TEST_CASE("each node's rate is that of its own workers") {
  const int cpu = allowed_cpus().front();
  ThreadPool pool(2, std::vector<Core>{{cpu, 0}, {cpu, 1}, {cpu, 4}, {cpu, 4}}, false);
  const auto bandwidth = probe_read_bandwidth(pool, 1, 0.01);
  REQUIRE(bandwidth.ok());
  const std::vector<NodeRate>& nodes = bandwidth.value().nodes;
  REQUIRE(nodes.size() == 3);
  CHECK(nodes[0].gbs > 0);
  CHECK(nodes[1].gbs == 0);  // no worker
  CHECK(nodes[2].node == 4);
  CHECK(nodes[2].gbs > 0);
}

TEST_CASE("a disk probe reads the file and names one that is missing or empty") {
  CHECK(probe_disk("/nowhere/at/all", 0.01).status().code() == Code::kNotFound);
  const std::string path = "probe_test.tmp";
  std::ofstream(path).close();
  CHECK(probe_disk(path, 0.01).status().code() == Code::kInvalidArgument);
  std::ofstream(path) << std::string(1 << 20, 'x');
  const auto disk = probe_disk(path, 0.05);
  REQUIRE(disk.ok());
  CHECK(disk.value().bytes == (1 << 20));
  CHECK(disk.value().gbs > 0);
  std::remove(path.c_str());
}

TEST_CASE("memory and CPU are known on this system") {
  const MemoryFound memory = probe_memory();
  CHECK(memory.total_bytes > 0);
  CHECK(memory.available_bytes <= memory.total_bytes);
  CHECK_FALSE(cpu_name().empty());
}
