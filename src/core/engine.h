// What runs a model: one step of a batch in, sampled tokens out. Real engines, and the simulated one, implement this.
//
//   BATON_RETURN_IF_ERROR(engine.Submit(batch, sink));
//   …                                                      // where info().steps_in_flight allows, Submit of the next
//   BATON_ASSIGN_OR_RETURN(StepOutput output, engine.Collect());
//
// Steps run in the order of Submit, each after the one before, and are collected in that order. An engine with
// steps_in_flight 2 takes the next step while one runs, so that its device has no gap between them; decode rows of that
// next step may name a token that is not known yet (BatchItem::sampled_by). Others compute in Submit.
//
// Threading: all calls from the one thread that owns the step loop.
// Ownership: the engine owns weights and KV memory; the caller names blocks by id only. Blocks of a step belong to it
//   until it was collected, whatever became of its sequences: nobody else may write them before.
// Errors: a step that fails, in Submit (then there is nothing to collect) or in Collect, leaves the KV cache of its
//   sequences undefined; Internal poisons the engine for good. FailedPrecondition: too many steps in flight, or none.
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
  int32_t steps_in_flight = 1;   // so many may be submitted before the first is collected: 1 or 2
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
  // Computes K and V of every item's tokens, then samples where asked. `sink` may be null; else it hears of the step's
  // layers before Collect returns the step, perhaps only then, and must live until then. The spans of the batch are
  // read before Submit returns; the batch itself, which the sink gets, must stay until Collect.
  virtual absl::Status Submit(const Batch& batch, LayerGroupSink* sink) = 0;
  // Waits for the oldest step that was submitted.
  virtual absl::StatusOr<StepOutput> Collect() = 0;
  // Both, while nothing is in flight.
  absl::StatusOr<StepOutput> Run(const Batch& batch, LayerGroupSink* sink) {
    BATON_RETURN_IF_ERROR(Submit(batch, sink));
    return Collect();
  }
  // Copies whole blocks within the cache (copy-on-write).
  virtual absl::Status CopyBlock(BlockId from, BlockId to) = 0;
};

}  // namespace baton
