// What of one prompt's KV cache has been computed, and what of it was pushed, in layers of each block.
//
// Whatever is computed, missing on the other side and not yet pushed goes as soon as there is a reservation. Pushes of
// one prompt end in the order in which they began, so blocks that are computed again after a preemption overwrite what
// was pushed before.
//
// Pure: a value. Ids and counts, never bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/ids.h"

namespace baton {

// Layers [layer_begin, layer_end) of one block. All layers: a whole block.
struct PushPiece {
  BlockId source = 0;  // here
  BlockId target = 0;  // there
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
};

struct PushRules {
  bool skip_held_blocks = true;        // blocks before first_missing are shared there: never written
  bool again_after_preemption = true;  // what was pushed before may have been other bytes
  bool computed_layers_only = true;
  bool complete_when_all_pushed = true;
};

class PushProgress {
 public:
  explicit PushProgress(int32_t num_layers = 0, const PushRules& rules = {}) : rules_(rules), num_layers_(num_layers) {}

  // A step will compute blocks [first_block, end_block); those before are final. `admitted`: the first step since an
  // admission, perhaps not the first one.
  void Plan(std::span<const BlockId> source, int32_t first_block, int32_t end_block, bool admitted);
  // Layers [0, layer_end) of the step have been computed.
  void LayersDone(int32_t layer_end);
  // Not empty; first_missing in [0, blocks].
  void Reserve(std::vector<BlockId> target, int32_t first_missing);
  // What can go now. Marks it as pushed.
  std::vector<PushPiece> TakeMissing();
  bool AllPushed() const;

  const std::vector<BlockId>& source() const { return source_; }
  const std::vector<BlockId>& target() const { return target_; }
  int32_t first_missing() const { return first_missing_; }
  const std::vector<int32_t>& pushed_layers() const { return pushed_layers_; }
  int32_t complete_blocks() const { return complete_blocks_; }
  int32_t chunk_end() const { return chunk_end_; }
  int32_t chunk_layers() const { return chunk_layers_; }

 private:
  int32_t ComputedLayers(int32_t block) const;

  PushRules rules_;
  int32_t num_layers_;
  std::vector<BlockId> source_;  // as far as they were planned
  std::vector<BlockId> target_;  // empty until reserved
  int32_t first_missing_ = 0;
  int32_t complete_blocks_ = 0;         // computed in all layers
  int32_t chunk_end_ = 0;               // blocks [complete_blocks_, chunk_end_) are being computed,
  int32_t chunk_layers_ = 0;            // in so many layers so far
  std::vector<int32_t> pushed_layers_;  // of each block
};

}  // namespace baton
