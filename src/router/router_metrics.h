// What the router counts, and the workers' own numbers under vLLM's names (label `engine`: the worker).
#pragma once

#include <map>
#include <string>

#include "base/metrics.h"
#include "proto/baton.pb.h"
#include "router/router.h"

namespace baton {

struct Router::Metrics {
  Metrics(MetricRegistry& registry, std::string model_name);
  void CountDecision(bool remote) { (remote ? remote_prefills : local_prefills).Add(1); }
  // `before` is the worker's last status, zero after a restart: counters grow by the difference.
  void Update(const std::string& engine, const proto::WorkerStatus& before, const proto::WorkerStatus& now);

  void SetWedged(const std::string& engine, bool wedged);

  MetricRegistry& registry;
  std::string model_name;
  Counter& remote_prefills;
  Counter& local_prefills;
  Counter& replays;
  Counter& workers_lost;
  Counter& workers_suspected;
  Counter& quarantined;
  Counter& refused_deadly;
};

}  // namespace baton
