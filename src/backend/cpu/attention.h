// Attention of one layer for all sequences of a step, spread over threads: units are (query tile, KV head); where those
// are too few for the threads, a long sequence's sections too.
//
// Threading: as ThreadPool. Ownership: scratch in the backend's arena; the plan and the batch of BeginStep must outlive
// the step.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/arena.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/step_plan.h"
#include "backend/cpu/thread_pool.h"

namespace baton::cpu {

class Attention {
 public:
  Attention(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  absl::Status Start(const ModelShape& shape, const KvLayout& kv, Arena& arena);
  int32_t queries_together() const { return queries_together_; }  // what StepPlan::Build should put into a tile

  void BeginStep(const Batch& batch, const StepPlan& plan);
  // q: [tokens][heads × head_dim] with stride q_stride (floats), out as q. `cache`: block 0.
  void Run(int32_t layer, const uint8_t* cache, const float* q, int64_t q_stride, float* out, int64_t out_stride);

 private:
  // Of one query tile and one KV head: everything (partial < 0), or one section, whose sums go to partials_ + partial.
  struct Unit {
    int32_t tile;
    int32_t kv_head;
    int32_t section;
    int64_t partial;
  };
  // Of one row and KV head, whose sections were taken apart.
  struct Split {
    int32_t row;
    int32_t kv_head;
    int32_t sections;
    int64_t partial;
  };
  void AddUnits(int32_t tile, bool split);

  const Kernels& kernels_;
  ThreadPool& pool_;
  ModelShape shape_;
  KvLayout kv_;
  int32_t group_ = 1;  // query heads of a KV head
  int32_t queries_together_ = 1;
  std::vector<float*> scratch_;  // [threads]

  // ---- of the current step ----
  const Batch* batch_ = nullptr;
  const StepPlan* plan_ = nullptr;
  std::vector<Unit> units_;
  std::vector<Split> splits_;
  std::vector<float> partials_;
};

}  // namespace baton::cpu
