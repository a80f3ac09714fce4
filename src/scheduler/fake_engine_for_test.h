// For tests: an engine whose "KV cache" is one number for each block and offset, and whose next token is a hash of all
// the numbers that a sequence can see through its block table. A wrong block table, a block that was freed too early or
// written by somebody else, or a prefix that is not there yet, changes the token.
//
// Threading: none.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/random.h"
#include "kv/block_pool.h"
#include "scheduler/finish.h"

namespace baton {

constexpr TokenId kFakeVocabulary = 40;

// The number of one position: depends on the one before it, and so on every token so far.
constexpr uint64_t FakeKv(uint64_t previous, TokenId token) { return MixBits(previous * 31 + token + 1); }
constexpr uint64_t kFakeKvStart = 0x5eed;

// Sampling from the sum of all visible numbers and the last one.
constexpr TokenId FakeSample(const SamplingParams& sampling, uint64_t sum, uint64_t last, int32_t position) {
  return static_cast<TokenId>(KeyedBits(sampling.seed ^ sum, sampling.choice + last, position) % kFakeVocabulary);
}

inline float FakeLogprob(uint64_t kv) { return -static_cast<float>(kv % 1024); }

// What the sequence generates when it runs alone; `generated` of the request is part of it.
struct FakeAnswer {
  std::vector<TokenId> tokens;  // generated ones
  FinishReason finish = FinishReason::kNone;
  std::vector<float> prompt_logprobs;
};

inline FakeAnswer RunAlone(const Request& request, const FinishRules& rules) {
  FakeAnswer answer;
  uint64_t last = kFakeKvStart;
  uint64_t sum = 0;
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    last = FakeKv(last, request.prompt[i]);
    sum += last;
    if (i + 1 < request.prompt.size()) answer.prompt_logprobs.push_back(FakeLogprob(last));
  }
  int32_t length = static_cast<int32_t>(request.prompt.size());
  while (answer.finish == FinishReason::kNone) {
    const TokenId token = FakeSample(request.sampling, sum, last, length);
    answer.tokens.push_back(token);
    answer.finish = FinishAfter(rules, request.sampling, static_cast<int32_t>(request.prompt.size()),
                                static_cast<int32_t>(answer.tokens.size()), token);
    last = FakeKv(last, token);
    sum += last;
    ++length;
  }
  return answer;
}

class FakeEngine {
 public:
  explicit FakeEngine(const BlockPool& pool)
      : pool_(pool), block_size_(pool.block_size()), kv_(static_cast<size_t>(pool.num_blocks()) * block_size_) {}

  uint64_t& At(BlockId block, int32_t offset) { return kv_[static_cast<size_t>(block) * block_size_ + offset]; }
  uint64_t& At(std::span<const BlockId> table, int32_t position) {
    return At(table[position / block_size_], position % block_size_);
  }

  // What belongs to nobody holds anything; a lost peer writes what it likes into fenced blocks.
  void Scribble() {
    for (BlockId block = 0; block < pool_.num_blocks(); ++block) {
      if (pool_.RefCount(block) > 0 || pool_.IsPublished(block)) continue;
      for (int32_t i = 0; i < block_size_; ++i) At(block, i) = ++garbage_;
    }
  }

  // ---- one step late: Submit takes a step, and it runs when it is collected ----
  void Submit(const Batch& batch) {
    for (const BatchItem& item : batch.items) {
      if (item.sampled_by < 0) continue;
      const bool fits = !steps_.empty() && item.sampled_by < std::ssize(steps_.back().items) &&
                        steps_.back().items[item.sampled_by].item.sample && item.count == 1 &&
                        steps_.back().items[item.sampled_by].item.sequence == item.sequence &&
                        item.start == static_cast<int32_t>(item.tokens.size());
      if (!fits) Report(Cat("sequence ", item.sequence.value, " takes its token from item ", item.sampled_by));
      if (item.sampling->has_penalties()) Report("penalties of a token that nobody knows");
    }
    steps_.emplace_back(batch);
  }
  // Runs the oldest step. What its sequences have become meanwhile is not its concern.
  StepOutput Collect() {
    OwnedStep step = std::move(steps_.front());
    steps_.pop_front();
    Batch batch;
    for (OwnedItem& owned : step.items) {
      if (owned.item.sampled_by >= 0) owned.tokens.push_back(last_output_.items[owned.item.sampled_by].sampled.token);
      owned.item.tokens = owned.tokens;
      owned.item.block_table = owned.blocks;
      owned.item.sampling = &owned.sampling;
      batch.items.push_back(owned.item);
    }
    return last_output_ = Run(batch);
  }
  size_t steps_in_flight() const { return steps_.size(); }

  // Items run at the same time: all read what was there before the step; writes land in the least favourable order.
  StepOutput Run(const Batch& batch) {
    CheckNobodyElseSeesWrites(batch);
    StepOutput output;
    output.items.resize(batch.items.size());
    std::vector<std::vector<uint64_t>> values;
    for (const BatchItem& item : batch.items) values.push_back(Compute(item));
    for (size_t i = batch.items.size(); i-- > 0;) {
      const BatchItem& item = batch.items[i];
      for (int32_t j = 0; j < item.count; ++j) At(item.block_table, item.start + j) = values[i][j];
      computed_tokens += item.count;
    }
    for (size_t i = 0; i < batch.items.size(); ++i) Sample(batch.items[i], output.items[i]);
    return output;
  }

  int64_t computed_tokens = 0;
  std::string error;  // the first rule that a plan broke

 private:
  struct OwnedItem {
    explicit OwnedItem(const BatchItem& from)
        : item(from),
          tokens(from.tokens.begin(), from.tokens.end()),
          blocks(from.block_table.begin(), from.block_table.end()),
          sampling(*from.sampling) {}
    BatchItem item;
    std::vector<TokenId> tokens;
    std::vector<BlockId> blocks;
    SamplingParams sampling;
  };
  struct OwnedStep {
    explicit OwnedStep(const Batch& batch) : items(batch.items.begin(), batch.items.end()) {}
    std::vector<OwnedItem> items;
  };

  std::vector<uint64_t> Compute(const BatchItem& item) {
    uint64_t last = item.start == 0 ? kFakeKvStart : At(item.block_table, item.start - 1);
    std::vector<uint64_t> values;
    for (int32_t j = 0; j < item.count; ++j) values.push_back(last = FakeKv(last, item.tokens[item.start + j]));
    return values;
  }

  void Sample(const BatchItem& item, StepOutput::Item& output) {
    if (item.prompt_logprobs) {
      for (int32_t p = item.start; p < item.start + item.count && p + 1 < item.prompt_length; ++p) {
        output.prompt_logprobs.push_back({item.tokens[p + 1], FakeLogprob(At(item.block_table, p)), {}});
      }
    }
    if (!item.sample) return;
    const int32_t end = item.start + item.count;
    uint64_t sum = 0;
    for (int32_t position = 0; position < end; ++position) sum += At(item.block_table, position);
    output.sampled.token = FakeSample(*item.sampling, sum, At(item.block_table, end - 1), end);
  }

  void CheckNobodyElseSeesWrites(const Batch& batch) {
    std::set<BlockId> written;
    for (const BatchItem& item : batch.items) {
      for (int32_t i = item.start / block_size_; i <= (item.start + item.count - 1) / block_size_; ++i) {
        const BlockId block = item.block_table[i];
        if (pool_.RefCount(block) != 1 || pool_.IsPublished(block) || !written.insert(block).second) {
          Report(Cat("block ", block, " is written but shared: references ", pool_.RefCount(block), ", published ",
                     pool_.IsPublished(block)));
        }
      }
    }
  }

  void Report(std::string what) {
    if (error.empty()) error = std::move(what);
  }

  const BlockPool& pool_;
  const int32_t block_size_;
  std::vector<uint64_t> kv_;
  uint64_t garbage_ = 0xbad00000000;
  std::deque<OwnedStep> steps_;
  StepOutput last_output_;
};

}  // namespace baton
