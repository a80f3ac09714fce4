// A prefill worker's scheduler and a decode worker's, with what a hand-off between them does: blocks are copied as
// plans report them complete, and every sequence still gets the tokens that it gets alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "scheduler/fake_engine_for_test.h"
#include "scheduler/scheduler.h"

namespace baton {
namespace {

constexpr int32_t kMaxLength = 96;

struct Worker {
  Worker(int32_t blocks, int32_t block_size, SchedulerOptions options)
      : pool(blocks, block_size), engine(pool), scheduler(*Scheduler::Create(std::move(options), pool)) {}

  BlockPool pool;
  FakeEngine engine;
  std::unique_ptr<Scheduler> scheduler;
};

class Pair {
 public:
  explicit Pair(int seed)
      : random_(seed),
        block_size_(1 << Random(5)),
        prefill_(kMaxLength / block_size_ + 2 + Random(120) / block_size_, block_size_, Options()),
        decode_(kMaxLength / block_size_ + 2 + Random(120) / block_size_, block_size_, Options()) {}

  void Run(int requests) {
    for (int tick = 0; tick < 200 * requests && !testing::Test::HasFailure(); ++tick) {
      if (started_ < requests && transfers_.size() < 12) Start();
      if (started_ == requests && transfers_.empty()) break;
      StepPrefill();
      for (auto& [id, transfer] : transfers_) Reserve(id, transfer);
      HandOver();
      StepDecode();
    }
    EXPECT_TRUE(transfers_.empty()) << transfers_.size() << " sequences never ended";
    for (Worker* worker : {&prefill_, &decode_}) {
      EXPECT_EQ(worker->pool.Stats().used, 0);
      EXPECT_TRUE(worker->scheduler->CheckIntegrity().ok()) << worker->scheduler->CheckIntegrity();
      EXPECT_EQ(worker->engine.error, "");
    }
  }

  int64_t finished = 0, late_reservations = 0, copied_blocks = 0, skipped_blocks = 0, restarts = 0;

 private:
  struct Transfer {
    Request request;
    FakeAnswer expected;
    size_t received = 0;
    int32_t complete = 0;  // blocks that the prefill worker has
    int32_t copied = 0;    // of them, in the decode worker; the first ones may be there already
    bool reserved = false;
    bool held = false;
    bool local = false;  // a short prompt that the prefill worker, being a hybrid, decodes itself
    bool decoding = false;
  };

  int Random(int bound) { return static_cast<int>(random_() % bound); }

  SchedulerOptions Options() {
    SchedulerOptions options;
    options.max_sequences = 2 + Random(8);
    options.prefill_chunk_tokens = block_size_ * (1 + Random(3));
    options.max_batch_tokens = options.max_sequences + options.prefill_chunk_tokens + Random(30);
    options.prefill_budget = Random(3) * 8 - 1;
    options.prefill_patience_steps = 4;
    options.max_model_len = kMaxLength;
    return options;
  }

  void Start() {
    Transfer transfer;
    const int common = Random(48);
    for (int i = 0; i < common; ++i) transfer.request.prompt.push_back(i % 7);
    for (int i = Random(8); i >= 0; --i) transfer.request.prompt.push_back(Random(kFakeVocabulary));
    transfer.request.sampling.seed = started_;
    transfer.request.sampling.max_tokens = 1 + Random(30);
    transfer.expected = RunAlone(transfer.request, {{}, kMaxLength});
    const SequenceId id{static_cast<uint64_t>(++started_)};
    transfer.local = Random(3) == 0;
    const SequenceKind kind = transfer.local ? SequenceKind::kLocal : SequenceKind::kPrefillOnly;
    ASSERT_TRUE(prefill_.scheduler->Add(id, transfer.request, kind).ok());
    transfers_[id] = std::move(transfer);
  }

  void StepPrefill() {
    const StepPlan plan = prefill_.scheduler->Schedule();
    if (plan.items.empty()) return;
    prefill_.engine.Scribble();
    StepOutput output = prefill_.engine.Run(plan.batch);
    for (size_t i = 0; i < plan.items.size(); ++i) {
      Transfer& transfer = transfers_.at(plan.batch.items[i].sequence);
      const PlannedItem& item = plan.items[i];
      if (item.complete_begin == 0 && transfer.complete > 0 &&
          !transfer.local) {  // preempted: computed, and sent, once more
        ++restarts;
        transfer.copied = 0;
      }
      transfer.complete = item.complete_end;
      Copy(transfer, plan.batch.items[i].sequence, plan.batch.items[i].block_table);
    }
    for (const SequenceEvent& event : prefill_.scheduler->Commit(plan, std::move(output))) {
      Transfer& transfer = transfers_.at(event.sequence);
      ASSERT_EQ(event.sampled.token, transfer.expected.tokens[transfer.received++]);
      transfer.held = event.held;
      if (!event.last || event.held) continue;
      ASSERT_EQ(event.finish, transfer.expected.finish);
      if (transfer.reserved) {
        ASSERT_TRUE(decode_.scheduler->AbandonRemote(event.sequence, ReservedBlocks::kFree).ok());
      }
      transfers_.erase(event.sequence);
      ++finished;
    }
  }

  // The decode worker takes blocks when the prefill has begun, or later when it has no room.
  void Reserve(SequenceId id, Transfer& transfer) {
    if (transfer.local || transfer.reserved || transfer.decoding || transfer.complete == 0) return;
    const auto reservation = decode_.scheduler->ReserveRemote(id, transfer.request);
    if (!reservation.ok()) {
      ++late_reservations;
      return;
    }
    transfer.reserved = true;
    cached_[id] = reservation->cached_tokens / block_size_;
    const Sequence* source = prefill_.scheduler->Find(id);
    Copy(transfer, id, source->blocks);
  }

  void Copy(Transfer& transfer, SequenceId id, std::span<const BlockId> source) {
    if (!transfer.reserved) return;
    const std::vector<BlockId>& target = decode_.scheduler->Find(id)->blocks;
    const int32_t available = std::min(transfer.complete, static_cast<int32_t>(source.size()));
    for (; transfer.copied < available; ++transfer.copied) {
      if (transfer.copied < cached_[id]) {
        ++skipped_blocks;
        continue;
      }
      for (int32_t i = 0; i < block_size_; ++i) {
        decode_.engine.At(target[transfer.copied], i) = prefill_.engine.At(source[transfer.copied], i);
      }
      ++copied_blocks;
    }
  }

  void HandOver() {
    for (auto& [id, transfer] : transfers_) {
      if (!transfer.held || !transfer.reserved) continue;
      ASSERT_EQ(transfer.copied, prefill_.pool.BlocksFor(static_cast<int64_t>(transfer.request.prompt.size())));
      const auto finish = decode_.scheduler->AddPrefilled(id, std::span(transfer.expected.tokens).first(1));
      ASSERT_TRUE(finish.ok() && *finish == FinishReason::kNone);
      ASSERT_TRUE(prefill_.scheduler->Release(id).ok());
      transfer.held = transfer.reserved = false;
      transfer.decoding = true;
    }
  }

  void StepDecode() {
    const StepPlan plan = decode_.scheduler->Schedule();
    if (plan.items.empty()) return;
    decode_.engine.Scribble();
    for (const SequenceEvent& event : decode_.scheduler->Commit(plan, decode_.engine.Run(plan.batch))) {
      Transfer& transfer = transfers_.at(event.sequence);
      ASSERT_EQ(event.position, static_cast<int32_t>(transfer.received));
      ASSERT_EQ(event.sampled.token, transfer.expected.tokens[transfer.received])
          << "sequence " << event.sequence.value;
      if (++transfer.received < transfer.expected.tokens.size()) continue;
      ASSERT_EQ(event.finish, transfer.expected.finish);
      transfers_.erase(event.sequence);
      ++finished;
    }
  }

  std::mt19937 random_;
  int32_t block_size_;
  Worker prefill_;
  Worker decode_;
  std::map<SequenceId, Transfer> transfers_;
  std::map<SequenceId, int32_t> cached_;  // blocks that the decode worker had
  int started_ = 0;
};

TEST(DisaggregationTest, TokensAreThoseOfOneWorker) {
  int64_t finished = 0, late = 0, copied = 0, skipped = 0, restarts = 0;
  for (int seed = 1; seed <= 100 && !HasFailure(); ++seed) {
    SCOPED_TRACE(Cat("seed ", seed));
    Pair pair(seed);
    pair.Run(150);
    finished += pair.finished;
    late += pair.late_reservations;
    copied += pair.copied_blocks;
    skipped += pair.skipped_blocks;
    restarts += pair.restarts;
  }
  std::cout << "finished " << finished << ", blocks copied " << copied << ", not sent " << skipped
            << ", reservations that had to wait " << late << ", restarts " << restarts << "\n";
  EXPECT_EQ(finished, 100 * 150);
  for (int64_t count : {copied, skipped, late, restarts}) EXPECT_GT(count, 30);
}

}  // namespace
}  // namespace baton
