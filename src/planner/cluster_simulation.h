// A deployment in virtual time: the product's own scheduler and block pool in each worker, and the router's own choice,
// index and counts in front of them; only what a step takes, a message and a copy is computed instead of waited for.
//
//   ClusterSimulation simulation(options);
//   std::vector<RequestResult> results = simulation.Run(requests);
//
// Deterministic: the same options and requests give the same results, on any machine. Of the hand-off it has the order
// of things (head-room on D, prefill on P, reservation when P starts, first token before the last block), not the
// messages themselves; failures are not simulated.
//
// Threading: none. Ownership: results are the caller's. Errors: a request that no worker could ever hold has
// `refused`; options that no scheduler accepts end the program (they are the program's own).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/prefill_dial.h"
#include "core/request.h"
#include "planner/hardware.h"
#include "router/worker_selector.h"

namespace baton {

struct SimulatedWorkerOptions {
  WorkerRole role = WorkerRole::kHybrid;
  SimulatedGpu gpu;
  uint64_t engine = 0;  // workers of one number take turns on one GPU, and hand over without a copy; 0: its own
  int32_t max_sequences = 128;
  int32_t prefill_chunk_tokens = 1024;
  int32_t prefill_budget = -1;  // fixed, beside decode rows; -1: the dial
};

// How the router chooses: as the product does, or as rivals would.
enum class RoutingPolicy : uint8_t {
  kProduct,
  kOracle,  // knows at every moment what each worker's cache holds, and takes the longest prefix (then the product)
};

struct ClusterSimulationOptions {
  std::vector<SimulatedWorkerOptions> workers;
  LatencyTargets targets;
  RoutingPolicy routing = RoutingPolicy::kProduct;
  bool price_shared_engines = true;       // false: as if each worker had its own
  int64_t max_local_prefill_tokens = -1;  // of decode workers; -1: as the dial says; 0: static disaggregation
  int32_t block_size = 128;               // tokens
  bool prefix_caching = true;
  double message_ms = 0.1;  // from one process to another
  double status_ms = 100;   // between two reports of a worker
  double path_gigabytes_per_second = 400;
  int32_t users = 0;  // closed loop: so many requests at a time, whatever their arrival; 0: open
};

struct SimulatedRequest {
  double arrival_ms = 0;
  std::vector<TokenId> prompt;
  int32_t output_tokens = 1;
  int32_t priority = 0;
  std::string user;
};

struct RequestResult {
  double arrival_ms = 0;
  double ttft_ms = 0;
  double tpot_ms = 0;  // (last − first token) / (tokens − 1)
  double gap_ms_max = 0;
  double end_ms = 0;
  bool refused = false;
  bool prefilled_remotely = false;
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;       // that the prefilling worker did not compute
  int32_t best_cached_tokens = 0;  // that some worker had when the choice was made
};

class ClusterSimulation {
 public:
  explicit ClusterSimulation(const ClusterSimulationOptions& options);
  ~ClusterSimulation();
  // Once. Results in the order of the requests, which ascend by arrival.
  std::vector<RequestResult> Run(std::vector<SimulatedRequest> requests);

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace baton
