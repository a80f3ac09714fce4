#include "planner/dial_sweep.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace baton {
namespace {

constexpr int32_t kChunkTokens = 1024;
constexpr uint64_t kSeed = 5;

void AddWorkers(Topology& topology, int count, WorkerRole role, int32_t tensor_parallel) {
  for (int i = 0; i < count; ++i) {
    topology.workers.push_back(
        {.role = role, .gpu = H200Llama70B(tensor_parallel), .prefill_chunk_tokens = kChunkTokens});
  }
}

double Uniform(uint64_t stream, uint64_t index) {
  return (static_cast<double>(KeyedBits(kSeed, stream, static_cast<int64_t>(index)) >> 11) + 0.5) / 9007199254740992.0;
}

int32_t Around(int32_t mean, uint64_t stream, uint64_t index) {
  return std::max(1, static_cast<int32_t>(mean * (0.5 + Uniform(stream, index))));
}

std::vector<SimulatedRequest> Requests(const Load& load) {
  std::vector<SimulatedRequest> requests(load.requests);
  double at_ms = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt.assign(Around(load.input_tokens, 1, i), static_cast<TokenId>(i));
    requests[i].output_tokens = Around(load.output_tokens, 2, i);
    if (load.requests_per_second <= 0) continue;
    at_ms -= 1e3 * std::log(Uniform(3, i)) / load.requests_per_second;
    requests[i].arrival_ms = at_ms;
  }
  return requests;
}

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto index = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[index];
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// Of the middle of the run: neither while the cluster fills, nor while it empties.
void Summarize(const std::vector<RequestResult>& results, const LatencyTargets& targets, DialOutcome& outcome) {
  std::vector<double> starts;
  for (const RequestResult& result : results) starts.push_back(result.arrival_ms);
  std::sort(starts.begin(), starts.end());
  const double begin_ms = starts[starts.size() / 5], end_ms = starts[starts.size() * 19 / 20];
  std::vector<double> ttft, tpot, gap;
  double good = 0, remote = 0;
  for (const RequestResult& result : results) {
    if (result.arrival_ms < begin_ms || result.arrival_ms >= end_ms) continue;
    ttft.push_back(result.ttft_ms);
    tpot.push_back(result.tpot_ms);
    gap.push_back(result.gap_ms_max);
    remote += result.prefilled_remotely;
    good += !result.refused && result.ttft_ms <= targets.ttft_ms && result.tpot_ms <= targets.itl_ms;
  }
  const double seconds = (end_ms - begin_ms) / 1e3;
  outcome.goodput = good / seconds;
  outcome.ttft_ms_mean = Mean(ttft);
  outcome.ttft_ms_p99 = Percentile(ttft, 0.99);
  outcome.tpot_ms_mean = Mean(tpot);
  outcome.tpot_ms_p99 = Percentile(tpot, 0.99);
  outcome.gap_ms_p99 = Percentile(gap, 0.99);
  outcome.prefilled_remotely = remote / static_cast<double>(std::max<size_t>(1, ttft.size()));
}

}  // namespace

bool Topology::has_prefill_workers() const {
  return std::ranges::any_of(workers, [](const auto& worker) { return worker.role == WorkerRole::kPrefill; });
}

std::vector<Topology> EightGpuTopologies() {
  std::vector<Topology> topologies;
  const auto disaggregated = [&](int prefills, int decodes, int32_t size) {
    Topology topology{.name = Cat(prefills, "P TP1 + ", decodes, "D TP", size)};
    AddWorkers(topology, prefills, WorkerRole::kPrefill, 1);
    AddWorkers(topology, decodes, WorkerRole::kDecode, size);
    topologies.push_back(std::move(topology));
  };
  const auto aggregated = [&](int count, int32_t size) {
    Topology topology{.name = Cat(count, " hybrid TP", size)};
    AddWorkers(topology, count, WorkerRole::kHybrid, size);
    topologies.push_back(std::move(topology));
  };
  disaggregated(4, 1, 4);
  disaggregated(6, 1, 2);
  disaggregated(4, 2, 2);
  disaggregated(4, 4, 1);
  aggregated(8, 1);
  aggregated(4, 2);
  aggregated(2, 4);
  return topologies;
}

std::vector<DialPolicy> PoliciesFor(const Topology& topology) {
  std::vector<DialPolicy> policies = {{.name = "dial"}};
  for (const int32_t budget : {0, 64, 128, 256, 512}) {
    policies.push_back({.name = Cat("budget ", budget), .prefill_budget = budget});
  }
  if (topology.has_prefill_workers()) {
    policies.push_back({.name = "static disaggregation", .prefill_budget = 0, .max_local_prefill_tokens = 0});
  } else {
    policies.push_back({.name = "chunked aggregation", .prefill_budget = kChunkTokens});
  }
  return policies;
}

DialOutcome RunOne(const Topology& topology, const Load& load, const DialPolicy& policy,
                   const LatencyTargets& targets) {
  ClusterSimulationOptions options{.workers = topology.workers,
                                   .targets = targets,
                                   .max_local_prefill_tokens = policy.max_local_prefill_tokens,
                                   .prefix_caching = false,
                                   .users = load.users};
  for (SimulatedWorkerOptions& worker : options.workers) worker.prefill_budget = policy.prefill_budget;
  DialOutcome outcome{.topology = topology.name, .load = load.name, .policy = policy.name};
  const std::vector<SimulatedRequest> requests = Requests(load);
  double tokens = 0;
  for (const SimulatedRequest& request : requests) tokens += request.output_tokens;
  const std::vector<RequestResult> results = ClusterSimulation(options).Run(requests);
  double end_ms = 0;
  for (const RequestResult& result : results) end_ms = std::max(end_ms, result.end_ms);
  outcome.output_tokens_per_second = 1e3 * tokens / end_ms;
  Summarize(results, targets, outcome);
  return outcome;
}

}  // namespace baton
