#include "engine/check_batch.h"

namespace baton {
namespace {

// A token that the step in flight samples.
absl::Status CheckSampledBy(const BatchItem& item, const std::vector<bool>& samples) {
  if (item.sampled_by >= static_cast<int64_t>(samples.size()) || !samples[item.sampled_by]) {
    return InvalidArgument("its token is to be sampled by item ", item.sampled_by, " of the step in flight, which has ",
                           samples.size(), " items and samples nothing there");
  }
  if (item.count != 1 || item.start != static_cast<int64_t>(item.tokens.size())) {
    return InvalidArgument("expected a decode step of the one token that is not known, at position ",
                           item.tokens.size(), ", found ", item.count, " at ", item.start);
  }
  if (item.sampling != nullptr && item.sampling->has_penalties()) {
    return InvalidArgument("penalties count the token that is not known: collect the step in flight first");
  }
  return absl::OkStatus();
}

absl::Status CheckItem(const BatchItem& item, const EngineInfo& info, const std::vector<bool>& samples) {
  const int64_t end = int64_t{item.start} + item.count;
  const int64_t known = item.sampled_by >= 0 ? end - 1 : end;
  if (item.sampled_by >= 0) BATON_RETURN_IF_ERROR(CheckSampledBy(item, samples));
  if (item.start < 0 || item.count < 1 || end > info.max_model_len) {
    return InvalidArgument("positions ", item.start, " + ", item.count, ": expected at least one, below ",
                           info.max_model_len);
  }
  if (static_cast<int64_t>(item.tokens.size()) < known) {
    return InvalidArgument("expected at least ", known, " tokens, found ", item.tokens.size());
  }
  if (item.prompt_length < 0 || item.prompt_length > static_cast<int64_t>(item.tokens.size())) {
    return InvalidArgument("prompt length ", item.prompt_length, " of ", item.tokens.size(), " tokens");
  }
  for (TokenId token : item.tokens.subspan(item.start, known - item.start)) {
    if (token < 0 || token >= info.vocabulary) {
      return InvalidArgument("token id ", token, ": expected 0 to ", info.vocabulary - 1);
    }
  }
  const int64_t blocks = info.kv.BlocksFor(end);
  if (static_cast<int64_t>(item.block_table.size()) < blocks) {
    return InvalidArgument("expected ", blocks, " blocks for ", end, " tokens, found ", item.block_table.size());
  }
  for (int64_t i = 0; i < blocks; ++i) {
    if (item.block_table[i] < 0 || item.block_table[i] >= info.num_blocks) {
      return InvalidArgument("block id ", item.block_table[i], ": expected 0 to ", info.num_blocks - 1);
    }
  }
  if (item.sample && item.sampling == nullptr) return InvalidArgument("a token to sample, but no sampling parameters");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const Batch& batch, const EngineInfo& info, const std::vector<bool>& samples) {
  const int64_t items = static_cast<int64_t>(batch.items.size());
  if (items == 0 || items > info.max_sequences) {
    return InvalidArgument("a batch of ", items, " sequences: expected 1 to ", info.max_sequences);
  }
  int64_t tokens = 0;
  for (int64_t i = 0; i < items; ++i) {
    if (absl::Status status = CheckItem(batch.items[i], info, samples); !status.ok()) {
      return absl::Status(status.code(), Cat("batch item ", i, ": ", Message(status)));
    }
    tokens += batch.items[i].count;
  }
  if (tokens > info.max_batch_tokens) {
    return InvalidArgument("a batch of ", tokens, " tokens: expected at most ", info.max_batch_tokens);
  }
  return absl::OkStatus();
}

}  // namespace baton
