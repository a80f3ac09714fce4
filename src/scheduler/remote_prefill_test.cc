// Sequences that another worker prefills: reservations, fences, recomputing.
#include <gtest/gtest.h>

#include "scheduler/scheduler_fixture_for_test.h"

namespace baton {
namespace {

using RemotePrefillTest = SchedulerTest;

TEST_F(RemotePrefillTest, RemotePrefillIsDecodedFromReservedBlocks) {
  Start(Options());
  Add(1, Prompt(8, 2));
  Drain();
  const auto reservation = scheduler_->ReserveRemote(SequenceId{2}, Prompt(10, 4));
  ASSERT_TRUE(reservation.ok()) << reservation.status();
  EXPECT_EQ(reservation->blocks.size(), 3u);
  EXPECT_EQ(reservation->cached_tokens, 8) << "nothing is computed here, so whole blocks are shared to the end";
  EXPECT_FALSE(scheduler_->HasWork());
  EXPECT_EQ(scheduler_->AddPrefilled(SequenceId{2}, {}).status().code(), absl::StatusCode::kInvalidArgument);
  const FakeAnswer alone = RunAlone(Prompt(10, 4), {{}, 200});
  uint64_t last = kFakeKvStart;
  for (int i = 0; i < 10; ++i) {
    last = FakeKv(last, Prompt(10).prompt[i]);
    if (i >= 8) engine_->At(reservation->blocks, i) = last;
  }
  const auto finish = scheduler_->AddPrefilled(SequenceId{2}, std::span(alone.tokens).first(1));
  ASSERT_TRUE(finish.ok()) << finish.status();
  EXPECT_EQ(*finish, FinishReason::kNone);
  EXPECT_EQ(scheduler_->AddPrefilled(SequenceId{2}, alone.tokens).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const auto events = Drain();
  ASSERT_EQ(events.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(events[i].sampled.token, alone.tokens[i + 1]);
  EXPECT_EQ(events[0].position, 1);
  EXPECT_FALSE(events[0].first) << "the first token came from elsewhere";
}

TEST_F(RemotePrefillTest, APrefilledSequencePublishesItsPrompt) {
  Start(Options());
  ASSERT_TRUE(scheduler_->ReserveRemote(SequenceId{1}, Prompt(10, 4)).ok());
  EXPECT_EQ(pool_->Stats().used, 3);
  const TokenId first[] = {5};
  ASSERT_TRUE(scheduler_->AddPrefilled(SequenceId{1}, first).ok());
  ASSERT_TRUE(scheduler_->Abort(SequenceId{1}).ok());
  EXPECT_EQ(pool_->Stats().cached, 2);
}

TEST_F(RemotePrefillTest, AFirstTokenMayBeTheLast) {
  Start(Options());
  Request request = Prompt(10, 4);
  request.sampling.stop_token_ids = {5};
  ASSERT_TRUE(scheduler_->ReserveRemote(SequenceId{1}, request).ok());
  const TokenId first[] = {5};
  const auto finish = scheduler_->AddPrefilled(SequenceId{1}, first);
  ASSERT_TRUE(finish.ok());
  EXPECT_EQ(*finish, FinishReason::kStop);
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_EQ(scheduler_->Find(SequenceId{1}), nullptr);
}

TEST_F(RemotePrefillTest, SharedBlocksAreDecodedFromWhereAnotherSchedulerComputedThem) {
  Start(Options());
  auto other = *Scheduler::Create(Options(), *pool_);  // on the same pool
  const Request request = Prompt(10, 4);
  ASSERT_TRUE(other->Add(SequenceId{7}, request, SequenceKind::kPrefillOnly).ok());
  const StepPlan plan = other->Schedule();
  const std::vector<BlockId> blocks = other->Find(SequenceId{7})->blocks;
  for (const BlockId block : blocks) pool_->Ref(block);
  const auto reservation = scheduler_->ReserveShared(SequenceId{1}, request, blocks, 0);
  ASSERT_TRUE(reservation.ok()) << reservation.status();
  EXPECT_EQ(reservation->blocks, blocks);
  EXPECT_TRUE(scheduler_->CheckIntegrity().ok()) << scheduler_->CheckIntegrity();
  const auto first = other->Commit(plan, engine_->Run(plan.batch));
  engine_->error.clear();  // it takes the second reference for somebody who reads already
  ASSERT_EQ(first.size(), 1u);
  ASSERT_TRUE(other->Release(SequenceId{7}).ok());
  EXPECT_EQ(pool_->Stats().used, 3) << "the references of the second scheduler hold them";
  const TokenId token[] = {first[0].sampled.token};
  ASSERT_EQ(*scheduler_->AddPrefilled(SequenceId{1}, token), FinishReason::kNone);
  EXPECT_TRUE(scheduler_->CheckIntegrity().ok()) << scheduler_->CheckIntegrity();
  const FakeAnswer alone = RunAlone(Prompt(10, 4), {{}, 200});
  EXPECT_EQ(token[0], alone.tokens[0]);
  const auto events = Drain();
  ASSERT_EQ(events.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(events[i].sampled.token, alone.tokens[i + 1]);
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_EQ(pool_->Stats().cached, 3) << "two blocks of the prompt, and one that decoding filled";
}

TEST_F(RemotePrefillTest, SharedBlocksStayWithTheCallerWhenThereIsNoPlace) {
  SchedulerOptions options = Options();
  options.max_sequences = 1;
  Start(options);
  const std::vector<BlockId> blocks = *pool_->Allocate(3);
  EXPECT_EQ(scheduler_->ReserveShared(SequenceId{1}, Prompt(5, 4), blocks, 0).status().code(),
            absl::StatusCode::kInvalidArgument)
      << "three blocks for five tokens";
  ASSERT_TRUE(scheduler_->ReserveShared(SequenceId{2}, Prompt(10, 4), blocks, 4).ok());
  const std::vector<BlockId> more = *pool_->Allocate(3);
  EXPECT_EQ(scheduler_->ReserveShared(SequenceId{3}, Prompt(10, 4), more, 0).status().code(),
            absl::StatusCode::kResourceExhausted);
  pool_->Free(more);
  ASSERT_TRUE(scheduler_->AbandonRemote(SequenceId{2}, ReservedBlocks::kFree).ok());
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(RemotePrefillTest, LostRemotePrefillsAreFencedAndRecomputed) {
  Start(Options());
  Add(1, Prompt(8, 2));
  Drain();
  const auto reservation = scheduler_->ReserveRemote(SequenceId{2}, Prompt(18, 4));
  ASSERT_TRUE(reservation.ok());
  const auto fenced = scheduler_->RecomputeRemote(SequenceId{2}, ReservedBlocks::kFence);
  ASSERT_TRUE(fenced.ok());
  EXPECT_EQ(*fenced, std::vector<BlockId>(reservation->blocks.begin() + 2, reservation->blocks.end()));
  EXPECT_EQ(pool_->Stats().fenced, 3);
  EXPECT_EQ(ShowAndCommit(), "2:8+10") << "computed here, with the prefix that was here";
  EXPECT_EQ(Drain().size(), 3u);
  for (BlockId block : *fenced) pool_->Unfence(block);
  EXPECT_EQ(pool_->Available(), 100);
  ASSERT_TRUE(scheduler_->ReserveRemote(SequenceId{3}, Prompt(18, 4)).ok());
  EXPECT_TRUE(scheduler_->AbandonRemote(SequenceId{3}, ReservedBlocks::kFree)->empty());
  EXPECT_EQ(pool_->Available(), 100);
  EXPECT_EQ(scheduler_->AbandonRemote(SequenceId{3}, ReservedBlocks::kFree).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(RemotePrefillTest, CorruptBlocksAreComputedHereFromTheFirstBadOne) {
  Start(Options());
  const auto reservation = scheduler_->ReserveRemote(SequenceId{1}, Prompt(18, 4));
  ASSERT_TRUE(reservation.ok());
  uint64_t last = kFakeKvStart;
  for (int i = 0; i < 18; ++i) {
    last = FakeKv(last, Prompt(18).prompt[i]);
    engine_->At(reservation->blocks, i) = i / kBlockSize == 2 ? 666 : last;
  }
  const FakeAnswer alone = RunAlone(Prompt(18, 4), {{}, 200});
  const auto first = std::span(alone.tokens).first(1);
  EXPECT_EQ(scheduler_->ResumeRemote(SequenceId{1}, first, 5).status().code(), absl::StatusCode::kInvalidArgument)
      << "none of five is bad";
  ASSERT_TRUE(scheduler_->ResumeRemote(SequenceId{1}, first, 2).ok());
  EXPECT_EQ(Get(1).blocks, reservation->blocks) << "it keeps them";
  EXPECT_EQ(pool_->Stats().used, 5);
  const StepPlan plan = scheduler_->Schedule();
  EXPECT_EQ(Show(plan), "1:8+11") << "the first token too";
  std::vector<SequenceEvent> events = Commit(plan);
  for (SequenceEvent& event : Drain()) events.push_back(std::move(event));
  ASSERT_EQ(events.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(events[i].sampled.token, alone.tokens[i + 1]);
    EXPECT_EQ(events[i].position, i + 1);
  }
  EXPECT_EQ(pool_->Stats().used, 0);
}

TEST_F(RemotePrefillTest, ReservationsLeaveRoomForWhoWaits) {
  Start(Options(), 10);
  Add(1, Prompt(20, 2));  // 6 blocks to be admitted
  EXPECT_EQ(scheduler_->ReserveRemote(SequenceId{2}, Prompt(16, 2, 7)).status().code(),
            absl::StatusCode::kResourceExhausted)
      << "5 blocks of 10, but 6 are spoken for";
  EXPECT_EQ(pool_->Stats().used, 0);
  EXPECT_TRUE(scheduler_->ReserveRemote(SequenceId{3}, Prompt(12, 2, 7)).ok()) << "4 blocks are not";
  Request urgent = Prompt(20, 2, 9);
  urgent.priority = -1;
  EXPECT_TRUE(scheduler_->ReserveRemote(SequenceId{4}, urgent).ok()) << "whoever is more urgent does not ask";
  EXPECT_TRUE(scheduler_->Schedule().items.empty());
  EXPECT_TRUE(scheduler_->HasWork());
}

TEST_F(RemotePrefillTest, ReservationsAreBoundedByTheSequencesOfAStep) {
  SchedulerOptions options = Options();
  options.max_sequences = 2;
  Start(options);
  Add(1, Prompt(4, 10));
  Step();
  EXPECT_TRUE(scheduler_->ReserveRemote(SequenceId{2}, Prompt(8, 4, 5)).ok());
  EXPECT_FALSE(scheduler_->ReserveRemote(SequenceId{3}, Prompt(8, 4, 7)).ok());
  Add(4, Prompt(4, 1, 9));
  EXPECT_EQ(ShowAndCommit(), "1:4+1") << "the reserved one will need the row";
  ASSERT_TRUE(scheduler_->AbandonRemote(SequenceId{2}, ReservedBlocks::kFree).ok());
  EXPECT_EQ(ShowAndCommit(), "1:5+1 4:0+4");
}

}  // namespace
}  // namespace baton
