#include "engine/sim_engine.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <deque>
#include <iterator>
#include <thread>
#include <utility>

#include "core/random.h"
#include "device/host_memory.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kLayers = 4;
constexpr int32_t kLayerGroup = 2;
constexpr int32_t kKvHeads = 2;
constexpr int32_t kHeadDim = 2;  // elements of two bytes: four bytes a token in each plane

class SimEngine : public Engine {
 public:
  SimEngine(const SimOptions& options, HostMemory memory) : options_(options), memory_(std::move(memory)) {
    info_ = {
        .backend = "sim",
        .device = "simulated",
        .fingerprint = Cat("sim/", options.vocabulary, "/", options.block_size),
        .kv = {.num_kv_heads = kKvHeads, .num_layers = kLayers, .block_size = options.block_size, .head_dim = kHeadDim},
        .num_blocks = options.num_blocks,
        .vocabulary = options.vocabulary,
        .max_model_len = options.max_model_len,
        .max_batch_tokens = options.max_batch_tokens,
        .max_sequences = options.max_sequences,
        .layer_group = kLayerGroup,
        .steps_in_flight = options.run_ahead ? 2 : 1};
  }

  const EngineInfo& info() const override { return info_; }

  KvMemory kv_memory() override {
    return {.base = memory_.data(), .bytes = memory_.bytes(), .shareable_fd = memory_.fd()};
  }

  absl::Status Submit(const Batch& batch, LayerGroupSink* sink) override {
    if (std::ssize(steps_) >= info_.steps_in_flight) {
      return FailedPrecondition("collect a step first: ", steps_.size(), " are in flight, the most there may be");
    }
    for (const BatchItem& item : batch.items) BATON_RETURN_IF_ERROR(Check(item));
    Step step{.submitted = Clock::now(), .batch = &batch, .sink = sink, .items = {}, .result = StepOutput()};
    for (const BatchItem& item : batch.items) step.items.emplace_back(item);
    steps_.push_back(std::move(step));
    if (!options_.run_ahead) RunStep(steps_.back());
    return absl::OkStatus();
  }

  absl::StatusOr<StepOutput> Collect() override {
    if (steps_.empty()) return FailedPrecondition("no step is in flight");
    Step step = std::move(steps_.front());
    steps_.pop_front();
    if (options_.run_ahead) RunStep(step);
    sampled_.clear();
    if (step.result.ok()) {
      for (const StepOutput::Item& item : step.result->items) sampled_.push_back(item.sampled.token);
    }
    return std::move(step.result);
  }

  absl::Status CopyBlock(BlockId from, BlockId to) override {
    const int64_t bytes = info_.kv.block_bytes();
    std::memcpy(memory_.data() + to * bytes, memory_.data() + from * bytes, bytes);
    return absl::OkStatus();
  }

 private:
  // With everything that may be gone before the step runs.
  struct OwnedItem {
    explicit OwnedItem(const BatchItem& from)
        : item(from),
          tokens(from.tokens.begin(), from.tokens.end()),
          blocks(from.block_table.begin(), from.block_table.end()),
          sampling(from.sampling == nullptr ? SamplingParams() : *from.sampling) {}
    BatchItem item;
    std::vector<TokenId> tokens;
    std::vector<BlockId> blocks;
    SamplingParams sampling;
  };
  struct Step {
    Clock::time_point submitted;
    const Batch* batch;  // for the sink
    LayerGroupSink* sink;
    std::vector<OwnedItem> items;
    absl::StatusOr<StepOutput> result;
  };

  // What the step before has sampled is known now.
  absl::StatusOr<std::vector<BatchItem>> ItemsOf(Step& step) const {
    std::vector<BatchItem> items;
    for (OwnedItem& owned : step.items) {
      BatchItem& item = items.emplace_back(owned.item);
      if (item.sampled_by >= std::ssize(sampled_)) return Internal("the step before has failed");
      if (item.sampled_by >= 0) owned.tokens.push_back(sampled_[item.sampled_by]);
      item.tokens = owned.tokens;
      item.block_table = owned.blocks;
      item.sampling = &owned.sampling;
    }
    return items;
  }

  void RunStep(Step& step) {
    absl::StatusOr<std::vector<BatchItem>> items = ItemsOf(step);
    step.result = items.ok() ? Compute(step, *items) : items.status();
    free_since_ = Clock::now();
  }

  absl::StatusOr<StepOutput> Compute(const Step& step, const std::vector<BatchItem>& items) {
    const Clock::time_point start = std::max(step.submitted, free_since_);
    const double duration_us = Duration(items);
    for (int32_t layer = 0; layer < kLayers; layer += kLayerGroup) {
      for (const BatchItem& item : items) {
        BATON_RETURN_IF_ERROR(MeetFaults(item));
        Append(item, layer, layer + kLayerGroup);
      }
      SleepUntil(start, duration_us * (layer + kLayerGroup) / kLayers);
      if (step.sink != nullptr) step.sink->OnLayersDone(*step.batch, layer, layer + kLayerGroup, nullptr);
    }
    StepOutput output;
    for (const BatchItem& item : items) output.items.push_back(Sample(item));
    output.duration_us = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
    return output;
  }

  static void SleepUntil(Clock::time_point start, double after_us) {
    if (after_us >= 1) std::this_thread::sleep_until(start + std::chrono::microseconds(static_cast<int64_t>(after_us)));
  }

  double Duration(const std::vector<BatchItem>& items) const {
    const SimProfile& profile = options_.profile;
    double total = profile.step_us;
    for (const BatchItem& item : items) {
      total += item.count > 1 ? profile.prefill_us_per_token * item.count
                              : profile.decode_us_per_sequence + profile.decode_us_per_context_token * item.start;
    }
    return total;
  }

  absl::Status Check(const BatchItem& item) const {
    const int32_t end = item.start + item.count;
    BATON_RETURN_IF_ERROR(CheckSampledBy(item));
    const int32_t unknown = item.sampled_by >= 0 ? 1 : 0;
    if (item.start < 0 || item.count < 1 || end > static_cast<int32_t>(item.tokens.size()) + unknown) {
      return Internal("sequence ", item.sequence.value, ": tokens [", item.start, ", ", end, ") of ",
                      item.tokens.size());
    }
    if (static_cast<int32_t>(item.block_table.size()) < info_.kv.BlocksFor(end)) {
      return Internal("sequence ", item.sequence.value, ": a block table of ", item.block_table.size(), " for ", end,
                      " tokens");
    }
    for (const BlockId block : item.block_table) {
      if (block < 0 || block >= info_.num_blocks) return Internal("block ", block, " of ", info_.num_blocks);
    }
    return absl::OkStatus();
  }

  absl::Status CheckSampledBy(const BatchItem& item) const {
    if (item.sampled_by < 0) return absl::OkStatus();
    const bool fits = !steps_.empty() && item.sampled_by < std::ssize(steps_.back().items) && item.count == 1 &&
                      item.start == std::ssize(item.tokens) && steps_.back().items[item.sampled_by].item.sample;
    if (fits) return absl::OkStatus();
    return Internal("sequence ", item.sequence.value, ": no step in flight samples its token as item ",
                    item.sampled_by);
  }

  absl::Status MeetFaults(const BatchItem& item) const {
    const SimFaults& faults = options_.faults;
    for (int32_t i = item.start; i < std::min(item.start + item.count, item.prompt_length); ++i) {
      const TokenId token = item.tokens[i];
      if (token == faults.crash_token) std::raise(SIGSEGV);
      while (token == faults.hang_token) std::this_thread::sleep_for(std::chrono::hours(1));
      if (token == faults.fail_token) return Internal("the simulated device failed at token ", token);
    }
    return absl::OkStatus();
  }

  uint8_t* Row(const BatchItem& item, int32_t position, int32_t head, int32_t layer, int32_t v) {
    const KvLayout& kv = info_.kv;
    return memory_.data() + item.block_table[position / kv.block_size] * kv.block_bytes() +
           kv.PlaneOffset(head, layer, v) + position % kv.block_size * kv.row_bytes();
  }

  template <typename Visit>
  void ForEachRow(const BatchItem& item, int32_t position, int32_t layer_begin, int32_t layer_end, Visit visit) {
    for (int32_t head = 0; head < kKvHeads; ++head) {
      for (int32_t layer = layer_begin; layer < layer_end; ++layer) {
        for (int32_t v = 0; v < 2; ++v) {
          visit(Row(item, position, head, layer, v), static_cast<uint64_t>((head * kLayers + layer) * 2 + v));
        }
      }
    }
  }

  void Append(const BatchItem& item, int32_t layer_begin, int32_t layer_end) {
    for (int32_t position = item.start; position < item.start + item.count; ++position) {
      ForEachRow(item, position, layer_begin, layer_end, [&](uint8_t* row, uint64_t plane) {
        const uint32_t bits =
            static_cast<uint32_t>(KeyedBits(static_cast<uint64_t>(item.tokens[position]), plane, position));
        std::memcpy(row, &bits, sizeof(bits));
      });
    }
  }

  StepOutput::Item Sample(const BatchItem& item) {
    StepOutput::Item out;
    if (item.prompt_logprobs) {
      const int32_t end = std::min(item.start + item.count, item.prompt_length - 1);
      for (int32_t i = item.start; i < end; ++i)
        out.prompt_logprobs.push_back({.token = item.tokens[i + 1], .logprob = -1});
    }
    if (!item.sample) return out;
    const int32_t length = item.start + item.count;
    uint64_t hash = 0;
    for (int32_t position = 0; position < length; ++position) {
      ForEachRow(item, position, 0, kLayers, [&](const uint8_t* row, uint64_t) {
        uint32_t bits;
        std::memcpy(&bits, row, sizeof(bits));
        hash = (hash ^ bits) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 29;
      });
    }
    const SamplingParams& sampling = *item.sampling;
    if (sampling.temperature > 0) hash ^= KeyedBits(sampling.seed, sampling.choice, length);
    out.sampled.token = static_cast<TokenId>(MixBits(hash) % static_cast<uint64_t>(info_.vocabulary));
    out.sampled.logprob = -1;
    return out;
  }

  const SimOptions options_;
  EngineInfo info_;
  HostMemory memory_;
  std::deque<Step> steps_;        // in flight
  std::vector<TokenId> sampled_;  // by the step that was collected last
  Clock::time_point free_since_;  // the simulated device: the end of its last step
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateSimEngine(const SimOptions& options) {
  const KvLayout kv{
      .num_kv_heads = kKvHeads, .num_layers = kLayers, .block_size = options.block_size, .head_dim = kHeadDim};
  BATON_ASSIGN_OR_RETURN(HostMemory memory, HostMemory::Create("baton-sim-kv", options.num_blocks * kv.block_bytes()));
  return std::make_unique<SimEngine>(options, std::move(memory));
}

}  // namespace baton
