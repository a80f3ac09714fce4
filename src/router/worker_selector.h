// Which decode worker takes a request, and which prefill worker, if any, reads its prompt: one argmin in milliseconds
// over every (D, P) and every (D, none).
//
//   cost = expected time to first token + what the request does to sequences that already run on D
//
// A pure function of a snapshot: no clock, no I/O, no memory. Prefilling where it decodes is just a candidate: its time
// follows from what the dial (core/prefill_dial.h) lets ride on D's steps, so it wins for prompts that are short or
// cached, and for others when the prefill workers' queues are long and D has time to spare within the targets.
//
// Workers that share an engine delay one another: each step of one is followed by a step of the other, and who waits
// for that is priced.
//
// Limits: O(decode × prefill workers) at worst; candidates that cannot be among the best are left out early.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/ids.h"
#include "core/prefill_dial.h"
#include "core/step_time_table.h"

namespace baton {

enum class WorkerRole : uint8_t { kHybrid, kPrefill, kDecode };

struct PathView {
  WorkerId prefill;
  double gigabytes_per_second = 0;  // measured; 0: not yet
  bool usable = true;               // false: refused (fingerprints differ, or too slow)
};

struct WorkerView {
  WorkerId id;
  WorkerRole role = WorkerRole::kHybrid;
  uint64_t engine = 0;                   // workers of one number take turns on one engine; 0: it has its own
  bool available = true;                 // it takes new requests
  int64_t queued_prefill_tokens = 0;     // dispatched to it and not yet computed
  int32_t queued_prefills = 0;           // prompts that these belong to
  int32_t sequences = 0;                 // dispatched to it for decoding and not finished
  double prefill_tokens_per_second = 0;  // measured; 0: not yet
  double decode_step_ms = 0;             // measured; 0: not yet
  StepTimeTable step_times;              // measured; empty: made of the two rates
  int32_t prefill_chunk_tokens = 512;    // most prompt tokens of one step
  int32_t prefill_budget = -1;           // fixed, beside decode rows; -1: the dial
  int64_t context_tokens = 0;            // in its KV cache, of sequences that run
  int64_t free_kv_tokens = 0;            // room, evictable blocks included
  int64_t kv_bytes_per_token = 0;
  int64_t cached_tokens = 0;    // of this request's prompt
  std::vector<PathView> paths;  // by which it receives, ascending by prefill worker
};

struct SelectionRequest {
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;
  LatencyTargets targets;
  // A decode worker prefills at most so many tokens itself while a prefill worker is there; -1: no such limit.
  int64_t max_local_prefill_tokens = -1;
};

struct Selection {
  WorkerId decode;
  std::optional<WorkerId> prefill;  // absent: prefill on the decode worker
  double cost_ms = 0;
  // The terms of the cost.
  double queue_ms = 0;        // prefill work ahead of it
  double prefill_ms = 0;      // of the tokens that the prefilling worker has not cached
  double transfer_ms = 0;     // what remains to be moved after the last layer
  double decode_load_ms = 0;  // its answer takes so much longer than on an idle worker
  double harm_ms = 0;         // by which its prefill delays others, all together
  double late_ms = 0;         // the first token would come after its target: what that is worth
  double pressure_ms = 0;     // KV memory of D that would have to be waited for
  double itl_ms = 0;          // steps of D would take more than the inter-token target: what that adds to all answers
};

// The best candidates with their terms, at most `count`, best first (ties: lower ids first). Empty when no worker can
// decode. `workers`: ascending by id.
std::vector<Selection> RankCandidates(const SelectionRequest& request, std::span<const WorkerView> workers,
                                      size_t count = SIZE_MAX);

}  // namespace baton
