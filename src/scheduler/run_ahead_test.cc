// A step is planned while one is in flight, and committed one step late.
#include <deque>

#include "scheduler/scheduler_fixture_for_test.h"

namespace baton {
namespace {

class RunAheadTest : public SchedulerTest {
 protected:
  static SchedulerOptions Options() {
    SchedulerOptions options = SchedulerTest::Options();
    options.run_ahead = true;
    return options;
  }
  // Plans a step and gives it to the engine; what it is, or nothing.
  std::string Submit() {
    StepPlan plan = scheduler_->Schedule();
    if (plan.items.empty()) return "";
    engine_->Submit(plan.batch);
    std::string shown = Show(plan);
    for (const BatchItem& item : plan.batch.items) {
      if (item.sampled_by >= 0) shown += Cat(" <", item.sampled_by);
    }
    plans_.push_back(std::move(plan));
    return shown;
  }
  // Ends the oldest step.
  std::vector<SequenceEvent> Collect(bool fail = false) {
    const StepPlan plan = std::move(plans_.front());
    plans_.pop_front();
    engine_->Scribble();  // whatever the pool has back may be written by others
    StepOutput output = engine_->Collect();
    auto events = fail ? scheduler_->Fail(plan) : scheduler_->Commit(plan, std::move(output));
    EXPECT_EQ(engine_->error, "");
    EXPECT_TRUE(scheduler_->CheckIntegrity().ok()) << scheduler_->CheckIntegrity();
    return events;
  }
  // One step is always in flight, while there is one to plan.
  std::vector<TokenId> RunToEnd() {
    std::vector<TokenId> tokens;
    for (int i = 0; i < 100; ++i) {
      const bool planned = !Submit().empty();
      if (plans_.empty()) return tokens;
      if (planned && plans_.size() == 1) continue;
      for (const SequenceEvent& event : Collect()) tokens.push_back(event.sampled.token);
    }
    ADD_FAILURE() << "does not end";
    return tokens;
  }
  std::deque<StepPlan> plans_;
};

TEST_F(RunAheadTest, DecodeRowsGoAheadWithTokensThatNobodyKnows) {
  Start(Options());
  Add(1, Prompt(5, 4));
  Add(2, Prompt(6, 9, 9));
  EXPECT_EQ(Submit(), "1:0+5 2:0+6");
  EXPECT_EQ(Submit(), "1:5+1 2:6+1 <0 <1");  // their first tokens
  EXPECT_EQ(Submit(), "") << "two are in flight";
  EXPECT_EQ(Collect().size(), 2u);
  EXPECT_EQ(Submit(), "1:6+1 2:7+1 <0 <1");
  EXPECT_EQ(Collect().size(), 2u);
  EXPECT_EQ(Submit(), "1:7+1 2:8+1 <0 <1");
  EXPECT_EQ(Collect().size(), 2u);
  EXPECT_EQ(Submit(), "2:9+1 <1") << "the fourth token is in flight: max_tokens";
  const auto last = Collect();
  EXPECT_EQ(last[0].finish, FinishReason::kLength);
  EXPECT_EQ(Submit(), "2:10+1 <0");
  EXPECT_EQ(Collect().size(), 1u);
  EXPECT_EQ(Collect().size(), 1u);
  EXPECT_EQ(RunToEnd().size(), 3u);
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(RunAheadTest, TheTokensAreThoseOfSynchronousSteps) {
  for (const bool ahead : {false, true}) {
    SchedulerOptions options = Options();
    options.run_ahead = ahead;
    Start(options);
    Request request = Prompt(23, 30);
    const FakeAnswer alone = RunAlone(request, {{}, options.max_model_len});
    Add(1, std::move(request));
    EXPECT_EQ(RunToEnd(), alone.tokens);
  }
}

TEST_F(RunAheadTest, TheModelsLengthIsForeseen) {
  SchedulerOptions options = Options();
  options.max_model_len = 8;
  Start(options);
  Add(1, Prompt(5, 3));
  EXPECT_EQ(RunToEnd().size(), 3u);
  EXPECT_EQ(engine_->computed_tokens, 7);
}

TEST_F(RunAheadTest, AStopTokenWastesOneRowAndKeepsItsBlocksMeanwhile) {
  SchedulerOptions options = Options();
  Request request = Prompt(7, 20);
  const FakeAnswer alone = RunAlone(request, {{}, options.max_model_len});
  request.sampling.stop_token_ids = {alone.tokens[2]};
  Start(options);
  Add(1, std::move(request));
  std::vector<SequenceEvent> events;
  Submit();
  while (events.empty() || !events.back().last) {
    ASSERT_NE(Submit(), "");
    events = Collect();
  }
  EXPECT_EQ(events.back().finish, FinishReason::kStop);
  EXPECT_EQ(scheduler_->Find(SequenceId{1}), nullptr);
  EXPECT_EQ(pool_->Stats().used, 3) << "a step in flight writes the third one";
  EXPECT_TRUE(scheduler_->HasWork());
  EXPECT_EQ(Submit(), "");
  EXPECT_TRUE(Collect().empty()) << "what the row samples is dropped";
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_FALSE(scheduler_->HasWork());
}

TEST_F(RunAheadTest, AnAbortWaitsForBothStepsInFlight) {
  Start(Options());
  Add(1, Prompt(7, 20));
  Submit();
  Submit();
  EXPECT_TRUE(scheduler_->Abort(SequenceId{1}).ok());
  EXPECT_FALSE(scheduler_->Abort(SequenceId{1}).ok());
  EXPECT_EQ(Submit(), "");
  EXPECT_TRUE(Collect().empty());
  EXPECT_EQ(pool_->Stats().used, 2);
  EXPECT_EQ(Submit(), "");
  EXPECT_TRUE(Collect().empty());
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(RunAheadTest, PenaltiesWaitForTheTokenThatTheyCount) {
  Start(Options());
  Request request = Prompt(5, 4);
  request.sampling.frequency_penalty = 0.5f;
  Add(1, std::move(request));
  Add(2, Prompt(5, 4, 9));
  EXPECT_EQ(Submit(), "1:0+5 2:0+5");
  EXPECT_EQ(Submit(), "") << "nobody goes ahead alone: all would fall out of step";
  Collect();
  EXPECT_EQ(Submit(), "1:5+1 2:5+1");
  EXPECT_EQ(Submit(), "");
  Collect();
  EXPECT_TRUE(scheduler_->Abort(SequenceId{1}).ok());
  EXPECT_EQ(Submit(), "2:6+1");
  EXPECT_EQ(Submit(), "2:7+1 <0");
}

TEST_F(RunAheadTest, APromptWaitsForTheStepInFlight) {
  Start(Options());
  Add(1, Prompt(5, 9));
  EXPECT_EQ(Submit(), "1:0+5");
  Add(2, Prompt(6, 9, 9));
  EXPECT_EQ(Submit(), "");
  Collect();
  EXPECT_EQ(Submit(), "1:5+1 2:0+6");
  EXPECT_EQ(Submit(), "1:6+1 2:6+1 <0 <1");
}

TEST_F(RunAheadTest, WaitingPromptsThatCannotRunHoldNobodyUp) {
  SchedulerOptions options = Options();
  options.max_sequences = 1;
  Start(options);
  Add(1, Prompt(5, 9));
  Add(2, Prompt(6, 9, 9));
  EXPECT_EQ(Submit(), "1:0+5");
  EXPECT_EQ(Submit(), "1:5+1 <0");
}

TEST_F(RunAheadTest, NobodyIsPreemptedWhileAStepWritesItsBlocks) {
  Start(Options(), 4);
  Add(1, Prompt(7, 9));
  Add(2, Prompt(7, 9, 9));
  EXPECT_EQ(Submit(), "1:0+7 2:0+7");
  EXPECT_EQ(Submit(), "1:7+1 2:7+1 <0 <1");
  Collect();
  EXPECT_EQ(Submit(), "") << "no block for the ninth token";
  EXPECT_EQ(scheduler_->Counts().preemptions, 0);
  Collect();
  EXPECT_EQ(Submit(), "1:8+1");
  EXPECT_EQ(scheduler_->Counts().preemptions, 1);
  EXPECT_EQ(Submit(), "1:9+1 <0");
}

TEST_F(RunAheadTest, AFailedStepEndsItsSequencesOnceAndPublishesNothing) {
  Start(Options());
  Add(1, Prompt(7, 9));
  Submit();
  Submit();
  const auto events = Collect(/*fail=*/true);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].finish, FinishReason::kError);
  EXPECT_TRUE(Collect().empty()) << "of a sequence that is gone";
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_EQ(pool_->Stats().cached, 0);
}

TEST_F(RunAheadTest, TheLaterStepMayFailFirst) {
  Start(Options());
  Add(1, Prompt(7, 9));
  Submit();
  const StepPlan later = scheduler_->Schedule();
  ASSERT_EQ(Show(later), "1:7+1");
  EXPECT_TRUE(scheduler_->Commit(later, StepOutput{.items = {{}}}).empty()) << "not the oldest";
  ASSERT_EQ(scheduler_->Fail(later).size(), 1u);
  EXPECT_EQ(pool_->Stats().used, 2) << "the first step still writes them";
  EXPECT_TRUE(Collect().empty());
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(RunAheadTest, PromptsForOthersAreNotDecodedAhead) {
  Start(Options());
  Add(1, Prompt(7, 9), SequenceKind::kPrefillOnly);
  EXPECT_EQ(Submit(), "1:0+7");
  EXPECT_EQ(Submit(), "");
  EXPECT_TRUE(Collect()[0].held);
  EXPECT_TRUE(scheduler_->Release(SequenceId{1}).ok());
}

}  // namespace
}  // namespace baton
