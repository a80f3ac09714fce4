// An engine without a model: it takes the time that a profile says, and everything else is real.
//
// Each token keeps a few bytes in every plane of real KV blocks, and the next token is a hash of the bytes of all
// tokens before it, read through the block table. So a wrong, late or missing write, a block freed too early, or a
// wrong block table changes the answer; and the same request has the same answer in every topology.
//
// With run_ahead it takes a step while one is in flight, as a GPU does, and runs each as late as can be: when it is
// collected. So whatever is written meanwhile into blocks that the step still writes changes an answer, too.
//
// Threading, ownership, errors: as Engine.
#pragma once

#include <memory>

#include "core/engine.h"

namespace baton {

// How long a step takes: the sum of its parts, in microseconds.
struct SimProfile {
  double step_us = 0;  // every step
  double prefill_us_per_token = 0;
  double decode_us_per_sequence = 0;
  double decode_us_per_context_token = 0;  // of each decoding sequence
};

// Prompt tokens on which a step does not end well, for tests of what others make of that; -1: none.
struct SimFaults {
  TokenId crash_token = -1;  // the process dies of SIGSEGV
  TokenId hang_token = -1;   // the step never ends
  TokenId fail_token = -1;   // the step fails with Internal, as a broken device
};

struct SimOptions {
  SimProfile profile;
  SimFaults faults;
  int32_t num_blocks = 1024;
  int32_t block_size = 32;  // tokens
  int32_t vocabulary = 32000;
  int32_t max_model_len = 8192;
  int32_t max_batch_tokens = 2048;
  int32_t max_sequences = 64;
  bool run_ahead = false;
};

absl::StatusOr<std::unique_ptr<Engine>> CreateSimEngine(const SimOptions& options);

}  // namespace baton
