// Counters, gauges and histograms in Prometheus' text form.
//
// Thread-safety: the io thread alone, so nothing locks and a scrape costs the engine nothing. Source: spec api.md 15.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nautile::serve {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void observe(double value, uint64_t times = 1);
  void write(const std::string& name, const std::string& labels, std::string& out) const;
  uint64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0;
};

// Families by name; within one, series by their labels (`a="x",b="y"`, escaped by the caller through label()).
class Metrics {
 public:
  Metrics();
  void count(const std::string& name, const std::string& labels = {}, double by = 1);
  void observe(const std::string& name, double value, const std::string& labels = {}, uint64_t times = 1);
  double value(const std::string& name, const std::string& labels = {}) const;
  const Histogram* histogram(const std::string& name) const;
  // Everything counted so far. `base` labels go on every series; names in `renamed` are written under another one.
  void write(const std::string& base_labels, std::string& out) const;

 private:
  struct Family {
    const char* help;
    bool is_histogram = false;
    std::vector<double> bounds{};
    std::map<std::string, double> values{};
    std::map<std::string, Histogram> histograms{};
  };
  void histogram_family(const char* name, const char* help, std::vector<double> bounds);
  void counter_family(const char* name, const char* help);
  std::map<std::string, Family> families_;
};

// `name="value"` with the value escaped.
std::string label(std::string_view name, std::string_view value);
// One gauge or counter with its HELP and TYPE lines.
void write_single(std::string_view name, const char* type, const char* help, std::string_view labels, double value,
                  std::string& out);

}  // namespace nautile::serve
