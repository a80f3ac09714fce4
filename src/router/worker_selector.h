// Which decode worker takes a request, and which prefill worker, if any, reads its prompt: one argmin in milliseconds
// over every (D, P) and every (D, none).
//
//   cost = expected time to first token + what the request does to sequences that already run on D
//
// A pure function of a snapshot: no clock, no I/O, no memory. Prefilling where it decodes is just a candidate, which
// wins for prompts that are short or cached; decode workers accept it up to `max_local_prefill_tokens`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/ids.h"

namespace baton {

enum class WorkerRole : uint8_t { kHybrid, kPrefill, kDecode };

struct WorkerView {
  WorkerId id;
  WorkerRole role = WorkerRole::kHybrid;
  int64_t queued_prefill_tokens = 0;     // dispatched to it and not yet computed
  int32_t sequences = 0;                 // dispatched to it for decoding and not finished
  double prefill_tokens_per_second = 0;  // measured; 0: not yet
  double decode_step_ms = 0;             // measured; 0: not yet
  int64_t free_kv_tokens = 0;            // room, evictable blocks included
  int64_t kv_bytes_per_token = 0;
  int64_t cached_tokens = 0;  // of this request's prompt
};

struct PathView {
  WorkerId prefill;
  WorkerId decode;
  double gigabytes_per_second = 0;  // measured; 0: not yet
  bool usable = true;               // false: refused (fingerprints differ, or too slow)
};

struct SelectionInput {
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;
  std::vector<WorkerView> workers;  // those that are ready
  std::vector<PathView> paths;
  int64_t max_local_prefill_tokens =
      0;  // a decode worker prefills at most so many tokens itself while a prefill worker is there
};

struct Selection {
  WorkerId decode;
  std::optional<WorkerId> prefill;  // absent: prefill on the decode worker
  double cost_ms = 0;
  // The terms of the cost.
  double queue_ms = 0;        // prefill work ahead of it
  double prefill_ms = 0;      // of the tokens that the prefilling worker has not cached
  double transfer_ms = 0;     // what remains to be moved after the last layer
  double decode_load_ms = 0;  // sequences on D
  double harm_ms = 0;         // stalls of the sequences on D while it prefills
  double pressure_ms = 0;     // KV memory of D that would have to be waited for
};

// Empty when no worker can decode.
std::optional<Selection> SelectWorkers(const SelectionInput& input);
// Every candidate with its terms, best first (ties: lower ids first): for x-baton-explain and tests.
std::vector<Selection> RankCandidates(const SelectionInput& input);

}  // namespace baton
