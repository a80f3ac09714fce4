#include "base/metrics.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace baton {
namespace {

std::string Escape(const std::string& text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return Cat(value);
}

std::string LabelText(const MetricLabels& labels, const std::string& bucket = "") {
  std::string out;
  for (const auto& [name, value] : labels) out += Cat(out.empty() ? "" : ",", name, "=\"", Escape(value, true), "\"");
  if (!bucket.empty()) out += Cat(out.empty() ? "" : ",", "le=\"", bucket, "\"");
  return out.empty() ? "" : "{" + out + "}";
}

void RenderHistogram(std::string& out, const std::string& name, const MetricLabels& labels,
                     const Histogram& histogram) {
  uint64_t total = 0;
  for (size_t i = 0; i <= histogram.bounds().size(); ++i) {
    total += histogram.bucket(i);
    const std::string bound = i < histogram.bounds().size() ? Number(histogram.bounds()[i]) : "+Inf";
    out += Cat(name, "_bucket", LabelText(labels, bound), " ", total, "\n");
  }
  out += Cat(name, "_sum", LabelText(labels), " ", Number(histogram.sum()), "\n");
  out += Cat(name, "_count", LabelText(labels), " ", total, "\n");
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(std::make_unique<std::atomic<uint64_t>[]>(bounds_.size() + 1)) {}

void Histogram::Observe(double value) {
  const size_t index = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[index].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

std::vector<double> TimeToFirstTokenBuckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}
std::vector<double> InterTokenLatencyBuckets() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
}
std::vector<double> RequestLatencyBuckets() {
  return {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}

MetricRegistry::Family& MetricRegistry::FindFamily(const std::string& name, const std::string& help, const char* type) {
  Family& family = families_[name];
  if (family.type.empty()) {
    family.help = help;
    family.type = type;
  }
  return family;
}

Counter& MetricRegistry::AddCounter(const std::string& name, const std::string& help, const MetricLabels& labels) {
  MutexLock lock(mutex_);
  auto& slot = FindFamily(name, help, "counter").counters[labels];
  if (!slot) slot = std::make_unique<Counter>();
  return *slot;
}

Gauge& MetricRegistry::AddGauge(const std::string& name, const std::string& help, const MetricLabels& labels) {
  MutexLock lock(mutex_);
  auto& slot = FindFamily(name, help, "gauge").gauges[labels];
  if (!slot) slot = std::make_unique<Gauge>();
  return *slot;
}

Histogram& MetricRegistry::AddHistogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                                        const MetricLabels& labels) {
  MutexLock lock(mutex_);
  auto& slot = FindFamily(name, help, "histogram").histograms[labels];
  if (!slot) slot = std::make_unique<Histogram>(std::move(bounds));
  return *slot;
}

std::string MetricRegistry::Render() const {
  MutexLock lock(mutex_);
  std::string out;
  for (const auto& [name, family] : families_) {
    out += Cat("# HELP ", name, " ", Escape(family.help, false), "\n# TYPE ", name, " ", family.type, "\n");
    for (const auto& [labels, counter] : family.counters)
      out += Cat(name, LabelText(labels), " ", Number(counter->value()), "\n");
    for (const auto& [labels, gauge] : family.gauges)
      out += Cat(name, LabelText(labels), " ", Number(gauge->value()), "\n");
    for (const auto& [labels, histogram] : family.histograms) RenderHistogram(out, name, labels, *histogram);
  }
  return out;
}

}  // namespace baton
