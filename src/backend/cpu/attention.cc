#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>

namespace baton::cpu {
namespace {

constexpr int kQueryRows = 24;        // queries × heads that share a tile of K and V in the cache of a core
constexpr int kUnitsPerThread = 4;    // fewer, and threads would wait for the last one
constexpr int64_t kInlineTiles = 24;  // of keys, times heads: less work than waking a thread

KvType KvTypeOf(DType dtype) {
  return dtype == DType::kF16 ? KvType::kF16 : dtype == DType::kI8 ? KvType::kI8 : KvType::kF32;
}

int32_t Sections(int32_t tokens) { return (tokens + kAttentionSection - 1) / kAttentionSection; }

}  // namespace

absl::Status Attention::Start(const ModelShape& shape, const KvLayout& kv, Arena& arena) {
  shape_ = shape;
  kv_ = kv;
  group_ = shape.num_heads / shape.num_kv_heads;
  queries_together_ = std::max(kQueryRows / group_, 1);
  const int64_t floats = AttentionScratchFloats(queries_together_, group_, shape.head_dim);
  for (int thread = 0; thread < pool_.threads(); ++thread) {
    BATON_ASSIGN_OR_RETURN(uint8_t * data, arena.Allocate(floats * static_cast<int64_t>(sizeof(float))));
    scratch_.push_back(reinterpret_cast<float*>(data));
  }
  return absl::OkStatus();
}

void Attention::AddUnits(int32_t tile, bool split) {
  const StepPlan::QueryTile& queries = plan_->query_tiles[tile];
  const int32_t sections = Sections(queries.first_position + queries.count);
  split = split && queries.count == 1 && sections > 1;
  for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
    if (!split) {
      units_.push_back({tile, head, 0, -1});
      continue;
    }
    const int64_t floats = PartialFloats(group_, shape_.head_dim);
    const int64_t first = static_cast<int64_t>(partials_.size());
    splits_.push_back({queries.first_row, head, sections, first});
    for (int32_t section = 0; section < sections; ++section) {
      units_.push_back({tile, head, section, first + section * floats});
    }
    partials_.resize(first + sections * floats);
  }
}

void Attention::BeginStep(const Batch& batch, const StepPlan& plan) {
  batch_ = &batch;
  plan_ = &plan;
  units_.clear();
  splits_.clear();
  partials_.clear();
  const int32_t tiles = static_cast<int32_t>(plan.query_tiles.size());
  const bool split = pool_.threads() > 1 && tiles * shape_.num_kv_heads < kUnitsPerThread * pool_.threads();
  for (int32_t tile = 0; tile < tiles; ++tile) AddUnits(tile, split);
}

void Attention::Run(int32_t layer, const uint8_t* cache, const float* q, int64_t q_stride, float* out,
                    int64_t out_stride) {
  const int64_t head_floats = int64_t{group_} * shape_.head_dim;
  auto attend = [&](int64_t index, int thread) {
    const Unit& unit = units_[index];
    const StepPlan::QueryTile& tile = plan_->query_tiles[unit.tile];
    AttentionArgs args;
    args.q = q + tile.first_row * q_stride + unit.kv_head * head_floats;
    args.out = out + tile.first_row * out_stride + unit.kv_head * head_floats;
    args.q_stride = q_stride;
    args.out_stride = out_stride;
    args.queries = tile.count;
    args.heads = group_;
    args.head_dim = shape_.head_dim;
    args.first_position = tile.first_position;
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    args.k = cache + kv_.PlaneOffset(unit.kv_head, layer, 0);
    args.v = cache + kv_.PlaneOffset(unit.kv_head, layer, 1);
    args.block_bytes = kv_.block_bytes();
    args.block_table = batch_->items[tile.item].block_table.data();
    args.block_size = kv_.block_size;
    args.row_bytes = static_cast<int>(kv_.row_bytes());
    args.kv = KvTypeOf(kv_.dtype);
    args.scratch = scratch_[thread];
    if (unit.partial >= 0) {
      args.partials = partials_.data() + unit.partial;
      args.first_section = unit.section;
      args.sections = 1;
    }
    kernels_.attention(args);
  };
  const int64_t units = static_cast<int64_t>(units_.size());
  if (plan_->attention_tiles * shape_.num_heads <= kInlineTiles) {
    for (int64_t unit = 0; unit < units; ++unit) attend(unit, 0);
  } else {
    pool_.ParallelFor(units, attend);
  }
  for (const Split& split : splits_) {
    kernels_.merge_sections(partials_.data() + split.partial, split.sections, group_, shape_.head_dim,
                            out + split.row * out_stride + split.kv_head * head_floats);
  }
}

}  // namespace baton::cpu
