// What runs a model: one step of a batch in, sampled tokens out. Real engines, and the simulated one, implement this.
//
// Threading: all calls from the one thread that owns the step loop.
// Ownership: the engine owns weights and KV memory; the caller names blocks by id only.
// Errors: a failed Run leaves the KV cache of the batch's sequences undefined; Internal poisons the engine for good.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "core/batch.h"
#include "core/kv_layout.h"

namespace baton {

struct EngineInfo {
  std::string backend;      // "cpu", "cuda", "sim"
  std::string device;       // for people: "2 threads, AVX2"
  std::string fingerprint;  // equal fingerprints: KV blocks may be exchanged
  KvLayout kv;
  int32_t num_blocks = 0;
  int32_t vocabulary = 0;
  int32_t max_model_len = 0;     // tokens
  int32_t max_batch_tokens = 0;  // tokens of one step
  int32_t max_sequences = 0;     // of one step
  int32_t layer_group = 0;       // layers between two calls of the sink
};

// The memory of the KV cache as other processes and the hand-off see it: num_blocks × kv.block_bytes().
struct KvMemory {
  uint8_t* base = nullptr;  // address in this process (host or device)
  int64_t bytes = 0;
  int shareable_fd = -1;  // memfd of the whole range at offset 0, when host memory; the engine keeps it
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineInfo& info() const = 0;
  virtual KvMemory kv_memory() = 0;
  // `sink` may be null. Computes K and V of every item's tokens, then samples where asked.
  virtual absl::StatusOr<StepOutput> Run(const Batch& batch, LayerGroupSink* sink) = 0;
  // Copies whole blocks within the cache (copy-on-write).
  virtual absl::Status CopyBlock(BlockId from, BlockId to) = 0;
};

}  // namespace baton
