#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/scheduler_fixture_for_test.h"

namespace baton {
namespace {

TEST_F(SchedulerTest, RefusesOptionsThatCannotWork) {
  BlockPool pool(10, 16);
  const auto refused = [&](auto change) {
    SchedulerOptions options;
    change(options);
    return Scheduler::Create(options, pool).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](SchedulerOptions& o) { o.prefill_chunk_tokens = 15; }));
  EXPECT_TRUE(refused([](SchedulerOptions& o) { o.max_batch_tokens = o.max_sequences + 15; }));
  EXPECT_TRUE(refused([](SchedulerOptions& o) { o.max_sequences = 0; }));
  EXPECT_TRUE(refused([](SchedulerOptions& o) { o.max_model_len = 1; }));
  EXPECT_FALSE(refused([](SchedulerOptions&) {}));
}

TEST_F(SchedulerTest, RefusesRequestsThatCanNeverBeServed) {
  Start(Options(), 10);
  const auto code = [&](const Request& request, SequenceKind kind = SequenceKind::kLocal) {
    return scheduler_->Add(SequenceId{1}, request, kind).code();
  };
  EXPECT_EQ(code(Prompt(0)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Prompt(5, 0)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Prompt(150, 51)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Prompt(38, 4)), absl::StatusCode::kInvalidArgument) << "41 tokens do not fit into 10 blocks of 4";
  EXPECT_EQ(code(Prompt(5), SequenceKind::kRemote), absl::StatusCode::kInvalidArgument);
  Request replay = Prompt(5, 2);
  replay.generated = {1, 2};
  EXPECT_EQ(code(replay), absl::StatusCode::kInvalidArgument);
  const absl::Status status = scheduler_->Add(SequenceId{1}, Prompt(150, 51), SequenceKind::kLocal);
  EXPECT_EQ(Message(status),
            "prompt of 150 tokens + max_tokens 51 = 201 is more than the model's 200; shorten one of them");
  EXPECT_EQ(code(Prompt(37, 4)), absl::StatusCode::kOk) << "the last token is never computed";
  EXPECT_EQ(code(Prompt(5)), absl::StatusCode::kInvalidArgument) << "the id is taken";
  EXPECT_EQ(Drain().size(), 4u);
}

TEST_F(SchedulerTest, DecodeRowsComeFirstAndPrefillRidesWithinItsBudget) {
  SchedulerOptions options = Options();
  options.prefill_budget = 6;
  Start(options);
  Add(1, Prompt(20, 10));
  EXPECT_EQ(ShowAndCommit(), "1:0+16");
  EXPECT_EQ(ShowAndCommit(), "1:16+4");
  Add(2, Prompt(9, 10, 7));
  EXPECT_EQ(ShowAndCommit(), "1:20+1 2:0+6");
  EXPECT_EQ(ShowAndCommit(), "1:21+1 2:6+3");
  EXPECT_EQ(ShowAndCommit(), "1:22+1 2:9+1");
  scheduler_->SetPrefillBudget(-1);
  Add(3, Prompt(18, 10, 9));
  EXPECT_EQ(ShowAndCommit(), "1:23+1 2:10+1 3:0+16");
}

TEST_F(SchedulerTest, AStepWithoutDecodeRowsTakesTheWholeBatch) {
  Start(Options());
  Add(1, Prompt(30, 1, 2));
  Add(2, Prompt(30, 1, 4));
  Add(3, Prompt(30, 1, 6));
  EXPECT_EQ(ShowAndCommit(), "1:0+16 2:0+16 3:0+8");
}

TEST_F(SchedulerTest, ABudgetOfNothingStarvesNobody) {
  SchedulerOptions options = Options();
  options.prefill_budget = 0;
  options.prefill_patience_steps = 3;
  Start(options);
  Add(1, Prompt(4, 40));
  Step();
  Add(2, Prompt(24, 4, 9));
  EXPECT_EQ(ShowAndCommit(), "1:4+1");
  EXPECT_EQ(ShowAndCommit(), "1:5+1");
  EXPECT_EQ(ShowAndCommit(), "1:6+1");
  EXPECT_EQ(ShowAndCommit(), "1:7+1 2:0+16");
  EXPECT_EQ(ShowAndCommit(), "1:8+1");
}

TEST_F(SchedulerTest, PrefillOnlyChunksEndAtBlocksAndTheSequenceIsHeld) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 7;
  Start(options);
  Add(1, Prompt(11, 5), SequenceKind::kPrefillOnly);
  StepPlan plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "1:0+4");
  EXPECT_EQ(plan.items[0].complete_begin, 0);
  EXPECT_EQ(plan.items[0].complete_end, 1);
  EXPECT_TRUE(Commit(plan).empty());
  plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "1:4+7");
  EXPECT_EQ(plan.items[0].complete_begin, 1);
  EXPECT_EQ(plan.items[0].complete_end, 3) << "the prompt's end completes its partial block";
  const auto events = Commit(plan);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_TRUE(events[0].first && events[0].held && events[0].last);
  EXPECT_EQ(events[0].finish, FinishReason::kNone);
  EXPECT_FALSE(scheduler_->HasWork());
  EXPECT_EQ(scheduler_->Counts().held, 1);
  EXPECT_EQ(pool_->Stats().used, 3);
  EXPECT_TRUE(scheduler_->Release(SequenceId{1}).ok());
  EXPECT_EQ(scheduler_->Release(SequenceId{1}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_EQ(pool_->Stats().cached, 2);
}

TEST_F(SchedulerTest, APrefillThatEndsAtItsFirstTokenIsNotHeld) {
  Start(Options());
  Add(1, Prompt(11, 1), SequenceKind::kPrefillOnly);
  const auto events = Step();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].finish, FinishReason::kLength);
  EXPECT_FALSE(events[0].held);
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(SchedulerTest, PriorityThenUsersInTurn) {
  SchedulerOptions options = Options();
  options.max_sequences = 1;
  Start(options);
  const auto add = [&](uint64_t id, const char* user, int32_t priority) {
    Request request = Prompt(4, 1, static_cast<TokenId>(id));
    request.user = user;
    request.priority = priority;
    Add(id, std::move(request));
  };
  add(1, "a", 1);
  add(2, "a", 1);
  add(3, "a", 1);
  add(4, "b", 1);
  add(5, "b", 0);
  std::vector<uint64_t> order;
  for (const SequenceEvent& event : Drain()) order.push_back(event.sequence.value);
  EXPECT_EQ(order, (std::vector<uint64_t>{5, 1, 4, 2, 3}));
}

TEST_F(SchedulerTest, TheYoungestOfTheLowestPriorityIsPreemptedAndComesBackFirst) {
  SchedulerOptions options = Options();
  options.prefix_caching = false;
  Start(options, 10);
  Request important = Prompt(8, 12, 2);
  important.priority = -1;
  Add(1, Prompt(8, 12, 4));
  Add(2, Prompt(8, 12, 6));
  Add(3, important);
  Step();  // all three run: 8 tokens each in 2 blocks, one more to decode
  EXPECT_EQ(scheduler_->Counts().running, 3);
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_EQ(scheduler_->Counts().preemptions, 0);
  Add(4, Prompt(4, 4, 8));
  Step();  // the three need a fourth block each
  EXPECT_EQ(scheduler_->Counts().preemptions, 1);
  EXPECT_EQ(Get(2).state, SequenceState::kWaiting);
  EXPECT_EQ(Get(2).generated(), 5) << "its tokens are kept";
  EXPECT_EQ(Get(4).state, SequenceState::kWaiting) << "it does not overtake";
  std::string plan;
  for (int step = 0; step < 20 && plan.find("2:") == plan.npos && plan.find("4:") == plan.npos; ++step) {
    plan = ShowAndCommit();
  }
  EXPECT_EQ(plan, "2:0+13 4:0+4") << "it comes back before whoever waited meanwhile";
  EXPECT_EQ(Drain().size(), 9u);
}

TEST_F(SchedulerTest, AdmissionWantsRoomForTheFirstTokenToo) {
  Start(Options(), 4);
  Add(1, Prompt(7, 2, 3));
  Add(2, Prompt(8, 4, 5));
  EXPECT_EQ(ShowAndCommit(), "1:0+7") << "2 free blocks hold the other's prompt, but not the token after it";
  EXPECT_EQ(ShowAndCommit(), "1:7+1");
  EXPECT_EQ(ShowAndCommit(), "2:0+8");
}

TEST_F(SchedulerTest, EqualPromptsAreComputedOnce) {
  Start(Options());
  for (uint64_t id = 1; id <= 4; ++id) {
    Request request = Prompt(30, 3);
    request.sampling.choice = static_cast<int32_t>(id);
    Add(id, std::move(request));
  }
  Step();
  EXPECT_EQ(scheduler_->Counts().running, 1);
  EXPECT_EQ(scheduler_->Counts().parked, 3);
  EXPECT_EQ(scheduler_->Counts().waiting, 3);
  const auto events = Drain();
  EXPECT_EQ(events.size(), 12u);
  // 30 tokens once, the partial block (2 tokens) three times more, and two decode steps each.
  EXPECT_EQ(engine_->computed_tokens, 30 + 3 * 2 + 4 * 2);
  for (const SequenceEvent& event : events) EXPECT_EQ(event.cached_tokens, event.sequence.value == 1 ? 0 : 28);
}

TEST_F(SchedulerTest, ManyEqualPromptsOfOneUserDoNotHoldUpAnother) {
  SchedulerOptions options = Options();
  options.max_sequences = 2;
  Start(options);
  const auto add = [&](uint64_t id, const char* user, TokenId first) {
    Request request = Prompt(20, 1, first);
    request.user = user;
    Add(id, std::move(request));
  };
  for (uint64_t id = 1; id <= 6; ++id) add(id, "a", 1);
  Step();
  EXPECT_EQ(scheduler_->Counts().parked, 5);
  add(7, "b", 9);
  std::vector<uint64_t> order;
  for (const SequenceEvent& event : Drain()) order.push_back(event.sequence.value);
  ASSERT_EQ(order.size(), 7u);
  EXPECT_LE(std::ranges::find(order, 7u) - order.begin(), 3);
}

TEST_F(SchedulerTest, WhoWaitsForAnAbortedPrefillGoesOnAlone) {
  Start(Options());
  Add(1, Prompt(60, 3));
  Add(2, Prompt(60, 3));
  Add(3, Prompt(60, 3));
  Step();
  EXPECT_EQ(scheduler_->Counts().parked, 2);
  EXPECT_TRUE(scheduler_->Abort(SequenceId{1}).ok());
  const StepPlan plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "2:16+16") << "with what was there already; the third waits for the second";
  EXPECT_TRUE(scheduler_->Abort(SequenceId{3}).ok()) << "parked ones can be aborted";
  Commit(plan);
  EXPECT_EQ(Drain().size(), 3u);
}

TEST_F(SchedulerTest, NobodyWaitsForAPrefillOfLowerPriority) {
  Start(Options());
  Request low = Prompt(60, 3);
  low.priority = 1;
  Add(1, low);
  Step();
  Add(2, Prompt(60, 3));
  EXPECT_EQ(Show(scheduler_->Schedule()), "2:16+16 1:16+16");
}

TEST_F(SchedulerTest, AWholePromptHitComputesItsLastBlockAgainPrivately) {
  Start(Options());
  Add(1, Prompt(8, 2));
  Drain();
  EXPECT_EQ(pool_->Stats().cached, 2);
  Add(2, Prompt(8, 2));
  const StepPlan plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "2:4+4");
  EXPECT_FALSE(pool_->IsPublished(plan.batch.items[0].block_table[1]));
  EXPECT_EQ(Commit(plan).at(0).cached_tokens, 4);
  Add(3, Prompt(9, 2));
  EXPECT_EQ(Show(scheduler_->Schedule()), "2:8+1 3:8+1") << "a longer prompt uses both blocks";
}

TEST_F(SchedulerTest, SaltsSecretsAndSwitchesKeepPrefixesApart) {
  Start(Options());
  Add(1, Prompt(9, 1));
  Drain();
  Request salted = Prompt(9, 1);
  salted.cache_salt = "tenant";
  Add(2, salted);
  EXPECT_EQ(ShowAndCommit(), "2:0+9");
  Request echo = Prompt(9, 1);
  echo.sampling.prompt_logprobs = true;
  Add(3, echo);
  const StepPlan plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "3:0+9");
  EXPECT_TRUE(plan.batch.items[0].prompt_logprobs);
  EXPECT_EQ(Commit(plan).at(0).prompt_logprobs.size(), 8u);
  SchedulerOptions options = Options();
  options.hash_secret = 1;
  auto other = *Scheduler::Create(options, *pool_);
  ASSERT_TRUE(other->Add(SequenceId{1}, Prompt(9, 1), SequenceKind::kLocal).ok());
  EXPECT_EQ(Show(other->Schedule()), "1:0+9") << "same pool, another secret";
}

TEST_F(SchedulerTest, AReplayGoesOnFromTheTokensSoFar) {
  Start(Options());
  const FakeAnswer alone = RunAlone(Prompt(10, 6), {{}, 200});
  Request replay = Prompt(10, 6);
  replay.generated = {alone.tokens[0], alone.tokens[1], alone.tokens[2]};
  Add(1, replay);
  const auto events = Drain();
  ASSERT_EQ(events.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(events[i].position, 3 + i);
    EXPECT_EQ(events[i].sampled.token, alone.tokens[3 + i]);
    EXPECT_EQ(events[i].first, i == 0);
  }
  EXPECT_EQ(events[2].finish, FinishReason::kLength);
}

TEST_F(SchedulerTest, AnAbortedSequenceKeepsItsBlocksUntilTheStepIsOver) {
  Start(Options());
  Add(1, Prompt(10, 6));
  const StepPlan plan = scheduler_->Schedule();
  EXPECT_TRUE(scheduler_->Schedule().items.empty()) << "one plan at a time";
  EXPECT_TRUE(scheduler_->Abort(SequenceId{1}).ok());
  EXPECT_EQ(scheduler_->Find(SequenceId{1}), nullptr);
  EXPECT_EQ(scheduler_->Abort(SequenceId{1}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(pool_->Stats().used, 3);
  EXPECT_TRUE(Commit(plan).empty());
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_EQ(pool_->Stats().cached, 2) << "what it computed is of use to others";
  EXPECT_FALSE(scheduler_->HasWork());
}

TEST_F(SchedulerTest, AFailedStepEndsItsSequencesAndPublishesNothing) {
  Start(Options());
  Add(1, Prompt(10, 6));
  Add(2, Prompt(10, 6, 9));
  const StepPlan plan = scheduler_->Schedule();
  ASSERT_TRUE(scheduler_->Abort(SequenceId{2}).ok());
  const auto events = scheduler_->Commit(plan, StepOutput{});  // not an item for each of the batch's
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].finish, FinishReason::kError);
  EXPECT_EQ(pool_->Stats().free, 100);
  EXPECT_TRUE(scheduler_->Commit(plan, StepOutput{}).empty()) << "committed twice";
}

TEST_F(SchedulerTest, CountsAndHeadRoom) {
  Start(Options(), 50);
  EXPECT_EQ(scheduler_->ExpectedFreeBlocks(), 50);
  Add(1, Prompt(8, 33));
  EXPECT_EQ(scheduler_->Counts().tokens_waiting, 8);
  EXPECT_EQ(scheduler_->ExpectedFreeBlocks(), 40) << "8 + 33 - 1 tokens are 10 blocks, as long as nothing is known";
  Step();
  EXPECT_EQ(scheduler_->Counts().tokens_waiting, 0);
  EXPECT_EQ(scheduler_->Counts().decoding, 1);
  EXPECT_EQ(scheduler_->ExpectedFreeBlocks(), 40) << "what it has and what it will need";
  Add(2, Prompt(7, 4, 9));
  EXPECT_EQ(scheduler_->ExpectedFreeBlocks(), 37);
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_EQ(scheduler_->Find(SequenceId{2}), nullptr);
  // The finished one generated 4 tokens; the other has 5 and may need one more block: 8 + 9 tokens.
  EXPECT_EQ(scheduler_->ExpectedFreeBlocks(), 50 - 5);
}

TEST_F(SchedulerTest, TheDestructorFreesBlocks) {
  Start(Options());
  Add(1, Prompt(10, 6));
  Add(2, Prompt(10, 6, 8), SequenceKind::kPrefillOnly);
  ASSERT_TRUE(scheduler_->ReserveRemote(SequenceId{3}, Prompt(10, 6, 11)).ok());
  Step();
  EXPECT_EQ(scheduler_->Counts().held, 1);
  scheduler_.reset();
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_TRUE(pool_->CheckIntegrity().ok());
}

}  // namespace
}  // namespace baton
