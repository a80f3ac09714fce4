// Counters, gauges and histograms, and their Prometheus text exposition (version 0.0.4).
//
//   Counter& tokens = registry.AddCounter("vllm:generation_tokens_total", "Tokens generated.", {{"engine", "0"}});
//   tokens.Add(1);
//
// Threading: values may change from any thread, without locks on the way; registering and Render() take a mutex.
// Ownership: the registry owns every metric; references stay valid as long as it lives.
// Errors: registering the same name and labels again returns the same metric.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace baton {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

class Counter {
 public:
  void Add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  // `bounds`: upper bounds of the buckets, ascending, without +Inf.
  explicit Histogram(std::vector<double> bounds);
  void Observe(double value);
  const std::vector<double>& bounds() const { return bounds_; }
  uint64_t bucket(size_t index) const { return counts_[index].load(std::memory_order_relaxed); }  // not cumulative
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [bounds + 1]
  std::atomic<double> sum_{0};
};

// Bucket bounds of vLLM's latency histograms, in seconds.
std::vector<double> TimeToFirstTokenBuckets();
std::vector<double> InterTokenLatencyBuckets();
std::vector<double> RequestLatencyBuckets();

class MetricRegistry {
 public:
  Counter& AddCounter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  Gauge& AddGauge(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  Histogram& AddHistogram(const std::string& name, const std::string& help, std::vector<double> bounds,
                          const MetricLabels& labels = {});
  // The text exposition of everything registered.
  std::string Render() const BATON_EXCLUDES(mutex_);

 private:
  struct Family {
    std::string help;
    std::string type;
    std::map<MetricLabels, std::unique_ptr<Counter>> counters;
    std::map<MetricLabels, std::unique_ptr<Gauge>> gauges;
    std::map<MetricLabels, std::unique_ptr<Histogram>> histograms;
  };
  Family& FindFamily(const std::string& name, const std::string& help, const char* type) BATON_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::map<std::string, Family> families_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
