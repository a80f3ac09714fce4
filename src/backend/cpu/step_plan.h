// What one batch means to the CPU backend: which sequence and position each row of activations is, how attention is cut
// into pieces, and which rows want logits.
//
// Threading: built by one thread, then read by all. Ownership: refers to nothing of the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"

namespace baton::cpu {

struct StepPlan {
  // Consecutive queries of one batch item that attention takes together.
  struct QueryTile {
    int32_t item;
    int32_t first_row;
    int32_t first_position;
    int32_t count;
  };
  struct ScoredRow {
    int32_t item;
    int32_t row;
    int32_t position;  // its token is tokens[position + 1]
  };
  struct SampledRow {
    int32_t item;
    int32_t row;
  };

  // At most `queries_together` queries (of positions) in one tile.
  void Build(const Batch& batch, int32_t queries_together);

  std::vector<int32_t> item_of_row;
  std::vector<int32_t> position_of_row;
  std::vector<QueryTile> query_tiles;  // the longest first, so that no thread begins one when the others end
  int64_t attention_tiles = 0;         // of keys, over all queries: how much work attention is for one head
  std::vector<SampledRow> sampled_rows;
  std::vector<ScoredRow> scored_rows;

 private:
  void AddQueryTiles(const BatchItem& item, int32_t index, int32_t first_row, int32_t queries_together);
};

}  // namespace baton::cpu
