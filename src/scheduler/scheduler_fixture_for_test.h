// For tests: a scheduler, a pool and a fake engine that are stepped by hand.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "scheduler/fake_engine_for_test.h"
#include "scheduler/scheduler.h"

namespace baton {

constexpr int32_t kBlockSize = 4;

// A prompt of its own for each `first`; end tokens do not end the answer.
inline Request Prompt(int32_t length, int32_t max_tokens = 4, TokenId first = 1) {
  Request request;
  for (int32_t i = 0; i < length; ++i) request.prompt.push_back(first + i % 30);
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

class SchedulerTest : public testing::Test {
 protected:
  void Start(SchedulerOptions options, int32_t blocks = 100) {
    pool_ = std::make_unique<BlockPool>(blocks, kBlockSize);
    engine_ = std::make_unique<FakeEngine>(*pool_);
    auto scheduler = Scheduler::Create(std::move(options), *pool_);
    ASSERT_TRUE(scheduler.ok()) << scheduler.status();
    scheduler_ = std::move(*scheduler);
  }
  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.max_batch_tokens = 40;
    options.max_sequences = 8;
    options.prefill_chunk_tokens = 16;
    options.max_model_len = 200;
    return options;
  }
  void Add(uint64_t id, Request request, SequenceKind kind = SequenceKind::kLocal) {
    const absl::Status status = scheduler_->Add(SequenceId{id}, std::move(request), kind);
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<SequenceEvent> Commit(const StepPlan& plan) {
    engine_->Scribble();
    auto events = scheduler_->Commit(plan, engine_->Run(plan.batch));
    EXPECT_EQ(engine_->error, "");
    EXPECT_TRUE(scheduler_->CheckIntegrity().ok()) << scheduler_->CheckIntegrity();
    return events;
  }
  std::vector<SequenceEvent> Step() { return Commit(scheduler_->Schedule()); }
  // Steps until nothing is left to do, or nothing can be done.
  std::vector<SequenceEvent> Drain() {
    std::vector<SequenceEvent> all;
    for (int step = 0; step < 1000; ++step) {
      const StepPlan plan = scheduler_->Schedule();
      if (plan.items.empty()) return all;
      for (SequenceEvent& event : Commit(plan)) all.push_back(std::move(event));
    }
    ADD_FAILURE() << "does not end";
    return all;
  }
  // "id:start+count" of each item, in order.
  static std::string Show(const StepPlan& plan) {
    std::string text;
    for (const BatchItem& item : plan.batch.items) {
      text += Cat(text.empty() ? "" : " ", item.sequence.value, ":", item.start, "+", item.count);
    }
    return text;
  }
  std::string ShowAndCommit() {
    const StepPlan plan = scheduler_->Schedule();
    Commit(plan);
    return Show(plan);
  }
  const Sequence& Get(uint64_t id) { return *scheduler_->Find(SequenceId{id}); }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Scheduler> scheduler_;
};

}  // namespace baton
