// What the router knows when it chooses: the ready workers with their load, who has which KV blocks, and what it has
// dispatched itself. The router and the simulation of clusters drive this same object.
//
// Threading: none of its own; the router's mutex. Errors: none; what it does not know it ignores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/block_hash.h"
#include "router/kv_index.h"
#include "router/worker_selector.h"

namespace baton {

// What one request needs, for choosing.
struct RouteRequest {
  int64_t prompt_tokens = 0;  // those included that were generated before a replay
  int64_t max_tokens = 0;     // still to be generated
  std::span<const BlockHash> blocks;
  int32_t block_size = 0;     // tokens
  bool reuses_prefix = true;  // false: every position is computed (prompt log-probabilities)
};

// Where one attempt of a request went, and what it therefore adds to those workers' load.
struct Placement {
  WorkerId decode;
  WorkerId prefill;           // equal to decode: prefilled there
  int64_t queued_tokens = 0;  // of prefill
  bool active = false;
  bool has_first_token = false;
};

class RoutingState {
 public:
  explicit RoutingState(LatencyTargets targets, int64_t max_local_prefill_tokens = -1)
      : targets_(targets), max_local_prefill_tokens_(max_local_prefill_tokens) {}

  // Connected workers. The caller fills in what was reported; counts of dispatched work are kept here.
  WorkerView& Add(WorkerId id, WorkerRole role);  // the one there, when there is one
  void Remove(WorkerId id);                       // what the index knows of it stays
  WorkerView* Find(WorkerId id);
  const WorkerView* Find(WorkerId id) const;
  KvIndex& index() { return index_; }
  const KvIndex& index() const { return index_; }

  // Best first, at most `count`.
  std::vector<Selection> Rank(const RouteRequest& request, size_t count);
  // Counts what the choice adds, until Ended. `request` as it was ranked, and again in the other calls.
  Placement Dispatched(const Selection& selection, const RouteRequest& request);
  void FirstToken(Placement& placement, const RouteRequest& request);
  void Ended(Placement& placement, const RouteRequest& request);

 private:
  void SetCached(const RouteRequest& request);

  const LatencyTargets targets_;
  const int64_t max_local_prefill_tokens_;
  std::vector<WorkerView> workers_;  // ascending by id
  std::vector<size_t> slots_;        // [workers_]: in the index
  KvIndex index_;
};

}  // namespace baton
