#include "backend/cpu/step_plan.h"

#include <algorithm>
#include <functional>

#include "backend/cpu/kernels.h"

namespace baton::cpu {

void StepPlan::AddQueryTiles(const BatchItem& item, int32_t index, int32_t first_row, int32_t queries_together) {
  for (int32_t i = 0; i < item.count; i += queries_together) {
    const int32_t count = std::min(queries_together, item.count - i);
    query_tiles.push_back({index, first_row + i, item.start + i, count});
    attention_tiles += int64_t{count} * ((item.start + i + count + kAttentionTile - 1) / kAttentionTile);
  }
}

void StepPlan::Build(const Batch& batch, int32_t queries_together) {
  item_of_row.clear();
  position_of_row.clear();
  query_tiles.clear();
  attention_tiles = 0;
  sampled_rows.clear();
  scored_rows.clear();
  for (int32_t index = 0; index < static_cast<int32_t>(batch.items.size()); ++index) {
    const BatchItem& item = batch.items[index];
    const int32_t first_row = static_cast<int32_t>(item_of_row.size());
    AddQueryTiles(item, index, first_row, queries_together);
    for (int32_t i = 0; i < item.count; ++i) {
      item_of_row.push_back(index);
      position_of_row.push_back(item.start + i);
      if (item.prompt_logprobs && item.start + i + 1 < item.prompt_length) {
        scored_rows.push_back({index, first_row + i, item.start + i});
      }
    }
    if (item.sample) sampled_rows.push_back({index, first_row + item.count - 1});
  }
  std::ranges::sort(query_tiles, std::greater(),
                    [](const QueryTile& tile) { return int64_t{tile.count} * (tile.first_position + tile.count); });
}

}  // namespace baton::cpu
