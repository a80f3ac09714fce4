// The dial in the scheduler: what rides on a decode step when targets and step times say it.
#include <gtest/gtest.h>

#include "scheduler/scheduler_fixture_for_test.h"

namespace baton {
namespace {

class DialTest : public SchedulerTest {
 protected:
  // Up to eight tokens in a millisecond, then one each.
  static SchedulerOptions WithDial(double itl_ms) {
    SchedulerOptions options = Options();
    options.targets.itl_ms = itl_ms;
    options.step_times = {.products = {{1, 1000}, {8, 1000}, {9, 2000}, {40, 33000}}};
    options.prefill_patience_steps = 3;
    return options;
  }

  // The plan, and its step takes as long as the table says, or as told.
  std::string Run(int64_t duration_us = -1) {
    const StepPlan plan = scheduler_->Schedule();
    StepOutput output = engine_->Run(plan.batch);
    const double says = scheduler_->options().step_times.StepUs(
        {.decode_rows = plan.decode_rows, .prompt_tokens = plan.prefill_tokens});
    output.duration_us = duration_us >= 0 ? duration_us : static_cast<int64_t>(says);
    scheduler_->Commit(plan, std::move(output));
    EXPECT_TRUE(scheduler_->CheckIntegrity().ok());
    return Show(plan);
  }
};

TEST_F(DialTest, WhatRidesKeepsTheInterTokenTarget) {
  Start(WithDial(1));
  Add(1, Prompt(4, 50));
  EXPECT_EQ(Run(), "1:0+4");
  Add(2, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:4+1 2:0+7");
  EXPECT_EQ(Run(), "1:5+1 2:7+7");
}

TEST_F(DialTest, StepsOfOthersOnTheEngineCountForWhoWaited) {
  Start(WithDial(1.5));
  Add(1, Prompt(4, 50));
  Run();
  Run();
  scheduler_->NoteOthersStep(9000);
  Add(2, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:5+1");  // behind its target it is not delayed further
}

TEST_F(DialTest, StepsThatTakeLongerThanMeasuredCarryLess) {
  Start(WithDial(4));
  Add(1, Prompt(4, 190));
  for (int i = 0; i < 100; ++i) Run(2000);  // a second's measurement outweighs this little
  EXPECT_NEAR(scheduler_->step_times().factor, 1.09, 0.02);
  for (int i = 0; i < 60; ++i) Run(100000);
  EXPECT_GT(scheduler_->step_times().factor, 3);
}

TEST_F(DialTest, SavedTimeIsSpentOnAPromptThatIsLate) {
  SchedulerOptions options = WithDial(4);
  options.targets.ttft_ms = 1;
  // Large steps are the better bargain here.
  options.step_times = {.products = {{1, 2000}, {8, 2000}, {9, 6000}, {40, 6100}}};
  Start(options);
  Add(1, Prompt(4, 50));
  Run();
  Run();
  Add(2, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:5+1 2:0+7");  // two milliseconds are saved, and six are allowed
  EXPECT_EQ(Run(), "1:6+1 2:7+16");
}

TEST_F(DialTest, ARowThatIsBehindIsNotDelayedFurther) {
  Start(WithDial(1.5));
  Add(1, Prompt(4, 50));
  Run();
  Run(9000);
  Add(2, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:5+1");
  EXPECT_EQ(Run(), "1:6+1");
  EXPECT_EQ(Run(), "1:7+1");
  EXPECT_EQ(Run(), "1:8+1 2:0+4");  // but nobody starves: a block
}

TEST_F(DialTest, AFixedBudgetOverridesIt) {
  SchedulerOptions options = WithDial(1);
  options.prefill_budget = 12;
  Start(options);
  Add(1, Prompt(4, 50));
  Run();
  Add(2, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:4+1 2:0+12");
}

TEST_F(DialTest, WithoutDecodeRowsThereIsNobodyToWaitFor) {
  Start(WithDial(0.1));
  Add(1, Prompt(30, 4, 9));
  EXPECT_EQ(Run(), "1:0+16");
}

}  // namespace
}  // namespace baton
