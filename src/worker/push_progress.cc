#include "worker/push_progress.h"

#include <algorithm>
#include <utility>

namespace baton {

void PushProgress::Plan(std::span<const BlockId> source, int32_t first_block, int32_t end_block, bool admitted) {
  if (admitted && rules_.again_after_preemption) pushed_layers_.clear();
  source_.assign(source.begin(), source.end());
  complete_blocks_ = first_block;
  chunk_end_ = end_block;
  chunk_layers_ = 0;
  pushed_layers_.resize(source_.size(), 0);
}

void PushProgress::LayersDone(int32_t layer_end) {
  chunk_layers_ = layer_end;
  if (layer_end == num_layers_) complete_blocks_ = chunk_end_;
}

void PushProgress::Reserve(std::vector<BlockId> target, int32_t first_missing) {
  target_ = std::move(target);
  first_missing_ = rules_.skip_held_blocks ? first_missing : 0;
}

int32_t PushProgress::ComputedLayers(int32_t block) const {
  if (block < complete_blocks_) return num_layers_;
  if (block >= chunk_end_) return 0;
  return rules_.computed_layers_only ? chunk_layers_ : num_layers_;
}

std::vector<PushPiece> PushProgress::TakeMissing() {
  std::vector<PushPiece> pieces;
  const size_t blocks = std::min(source_.size(), target_.size());
  for (size_t i = first_missing_; i < blocks; ++i) {
    const int32_t computed = ComputedLayers(static_cast<int32_t>(i));
    const int32_t begin = std::exchange(pushed_layers_[i], std::max(pushed_layers_[i], computed));
    if (computed > begin) {
      pieces.push_back({.source = source_[i], .target = target_[i], .layer_begin = begin, .layer_end = computed});
    }
  }
  return pieces;
}

bool PushProgress::AllPushed() const {
  if (target_.empty()) return false;
  if (!rules_.complete_when_all_pushed) return true;
  return std::all_of(pushed_layers_.begin() + std::min<ptrdiff_t>(first_missing_, std::ssize(pushed_layers_)),
                     pushed_layers_.end(), [&](int32_t layers) { return layers >= num_layers_; });
}

}  // namespace baton
