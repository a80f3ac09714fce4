// Is the dial as good as the best fixed setting, whatever the load? Runs clusters of eight simulated GPUs under a sweep
// of loads and topologies, with the dial and with its rivals, and compares goodput: requests a second that kept both
// latency targets.
//
// Rivals on each topology: fixed budgets of prompt tokens on a decode step; static disaggregation (decode workers
// prefill nothing) where there are prefill workers; chunked aggregation (a whole chunk rides) where there are none.
//
// Threading: none. Deterministic.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "planner/cluster_simulation.h"

namespace baton {

struct Topology {
  std::string name;
  std::vector<SimulatedWorkerOptions> workers;
  bool has_prefill_workers() const;
};

struct Load {
  std::string name;
  int32_t users = 0;               // closed loop; 0: open
  double requests_per_second = 0;  // open loop, Poisson
  int32_t input_tokens = 0;        // mean; each between half and one and a half of it
  int32_t output_tokens = 0;       // likewise
  int32_t requests = 0;
};

struct DialPolicy {
  std::string name;  // "dial", "budget 64", "static disaggregation", "chunked aggregation"
  int32_t prefill_budget = -1;
  int64_t max_local_prefill_tokens = -1;
};

struct DialOutcome {
  std::string topology, load, policy;
  double goodput = 0;  // requests a second
  double output_tokens_per_second = 0;
  double ttft_ms_mean = 0, ttft_ms_p99 = 0;
  double tpot_ms_mean = 0, tpot_ms_p99 = 0;
  double gap_ms_p99 = 0;          // longest gap of each request
  double prefilled_remotely = 0;  // share of the requests
};

std::vector<Topology> EightGpuTopologies();
std::vector<DialPolicy> PoliciesFor(const Topology& topology);  // the dial first
DialOutcome RunOne(const Topology& topology, const Load& load, const DialPolicy& policy, const LatencyTargets& targets);

}  // namespace baton
