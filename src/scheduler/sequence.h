// One sequence as the scheduler sees it: its tokens, its blocks, and how far they are computed.
//
// Threading and ownership: the scheduler's own; others may read one that Scheduler::Find returned until the next call.
#pragma once

#include <cstdint>
#include <vector>

#include "core/block_hash.h"
#include "core/request.h"

namespace baton {

enum class SequenceKind : uint8_t {
  kLocal,        // prefill and decode here
  kPrefillOnly,  // prefill here, then held until Release: the KV cache goes to a decode worker
  kRemote,       // prefilled by another worker into blocks reserved here, decoded here
};

enum class SequenceState : uint8_t {
  kWaiting,   // has no blocks
  kRunning,   // has blocks, and is prefilled or decoded
  kHeld,      // prefill-only, first token sampled: blocks stay until Release
  kReserved,  // remote: blocks are being written by another worker
};

struct Sequence {
  SequenceId id;
  SequenceKind kind = SequenceKind::kLocal;
  SequenceState state = SequenceState::kWaiting;
  Request request;              // prompt and generated are moved into `tokens`
  std::vector<TokenId> tokens;  // prompt, then generated tokens
  int32_t prompt_length = 0;
  uint64_t arrival = 0;  // order of Add; kept through preemption

  std::vector<BlockId> blocks;    // one reference each; of positions [0, blocks × block_size)
  std::vector<BlockHash> hashes;  // of full blocks of `tokens`, as far as known; empty without prefix caching
  BlockHash root;                 // parent of hashes[0]
  int32_t computed = 0;           // tokens whose K and V are in the cache
  int32_t planned = 0;            // likewise, when the steps in flight have ended
  int32_t unknown = 0;            // tokens that steps in flight will have sampled
  int32_t sampled_by = 0;         // the item, of the last of those steps, that samples the newest of them
  int32_t prefill_end = 0;        // tokens to compute before the next one is sampled; fixed at admission
  bool decoding = false;          // the prefill of this admission is over
  int32_t named_blocks = 0;       // blocks [0, this) are published, or found to be duplicates
  int32_t complete_blocks = 0;    // blocks [0, this) were reported complete in a plan of this admission
  int32_t announced_begin = 0;    // blocks [begin, end) are announced as being computed: others wait for them
  int32_t announced_end = 0;
  int32_t cached_tokens = -1;     // prompt tokens that came from the cache at first admission; -1: not yet admitted
  int32_t first_position = 0;     // index among generated tokens of the first one that is sampled here
  double added_us = 0;            // on the scheduler's clock of step times: when it was added
  double decoding_since_us = -1;  // likewise: when its first token was sampled or arrived
  int32_t decoded = 0;            // tokens since then
  int32_t in_flight = 0;          // steps that it is part of and that are not committed yet
  bool ended = false;             // aborted or finished: gone at the end of the steps that it is part of
  bool prompt_logprobs = false;   // still to be delivered
  std::vector<SampledToken> collected_logprobs;  // of the prompt, so far

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t generated() const { return length() - prompt_length; }
  // Its next step is a decode step, as far as one can know.
  bool decodes_next() const {
    return kind != SequenceKind::kPrefillOnly && (decoding || unknown > 0) && planned + 1 == length() + unknown;
  }
  // Most tokens whose K and V are ever needed: the last sampled token is never computed.
  int32_t max_computed() const { return prompt_length + request.sampling.max_tokens - 1; }
};

}  // namespace baton
