// Folders: router worker engine rpc transfer scheduler
// Workers that freeze, hang, or die of what they compute.
#include "cluster_fixture.h"

namespace baton {
namespace {

// ---- workers that live and do not work ----

const std::vector<Roles> kTopologies = {{proto::HYBRID, proto::HYBRID},
                                        {proto::DECODE, proto::DECODE, proto::PREFILL},
                                        {proto::PREFILL, proto::DECODE, proto::PREFILL}};
class FrozenTest : public testing::TestWithParam<Roles> {
 protected:
  static ClusterOptions Options() {
    ClusterOptions options{.profile = {.step_us = 4000, .prefill_us_per_token = 50}};
    for (const proto::Role role : GetParam()) options.workers.push_back({role});
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(All, FrozenTest, testing::ValuesIn(kTopologies));

TEST_P(FrozenTest, StreamsGoOnElsewhereAndAWorkerThatWasOnlySlowComesBack) {
  Cluster cluster(Options());
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 2));
  cluster.Freeze(0);
  ASSERT_TRUE(cluster.WaitState(0, "suspected"));
  ASSERT_TRUE(collector.WaitAll());  // while it is frozen still
  ExpectSame(collector.answers());
  EXPECT_EQ(cluster.Snapshot(0).dispatched_sequences, 0);
  cluster.Thaw(0);
  ASSERT_TRUE(cluster.WaitState(0, "ready"));
  cluster.ExpectNothingLeft();
  EXPECT_TRUE(cluster.lost().empty());
  EXPECT_EQ(cluster.Snapshot(0).incarnation, 1u);
  ExpectSame(RunAll(cluster, requests, false));
  cluster.ExpectNothingLeft();
}

TEST_P(FrozenTest, AStoppedWorkerIsReportedAndItsEndBringsAllBlocksHome) {
  ClusterOptions options = Options();
  options.beat_ms = 100;  // nobody else may be silent for ten of them
  Cluster cluster(options);
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 2));
  cluster.set_process_state(ProcessState::kStopped);
  cluster.Freeze(0);
  ASSERT_TRUE(cluster.WaitState(0, "connecting"));  // given up
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  EXPECT_EQ(cluster.lost(), std::vector<uint64_t>{1});
  cluster.set_process_state(ProcessState::kActive);
  cluster.StopWorker(0);  // what the supervisor makes of the report
  cluster.Announce();
  cluster.ExpectNothingLeft();
  cluster.StartWorker(0);
  cluster.Announce();
  ASSERT_TRUE(cluster.WaitState(0, "ready"));
  ExpectSame(RunAll(cluster, requests, false));
  cluster.ExpectNothingLeft();
}

TEST_P(FrozenTest, AStepLoopThatHangsIsNoticedAlthoughBeatsAreAnswered) {
  ClusterOptions options = Options();
  options.wedged_after_ms = 600;
  Cluster cluster(options);
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 2));
  cluster.Freeze(0, /*all=*/false);
  ASSERT_TRUE(cluster.WaitState(0, "wedged"));
  EXPECT_NE(std::string(Message(cluster.router().Health())).find("step loop"), std::string::npos)
      << cluster.router().Health();
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.Thaw(0);
  ASSERT_TRUE(cluster.WaitState(0, "ready"));
  EXPECT_TRUE(cluster.router().Health().ok());
  cluster.ExpectNothingLeft();
}

TEST(LivenessTest, WithOneWorkerStreamsWaitUntilItIsBack) {
  Cluster cluster({.workers = {{proto::HYBRID}}, .profile = {.step_us = 4000}});
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 2));
  cluster.Freeze(0);
  ASSERT_TRUE(cluster.WaitState(0, "suspected"));
  EXPECT_FALSE(cluster.router().Health().ok());
  cluster.Thaw(0);
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.ExpectNothingLeft();
}

TEST(LivenessTest, ALongStepIsNotWedged) {
  ClusterOptions options{.workers = {{proto::HYBRID}}, .profile = {.prefill_us_per_token = 15000}, .chunk = 128};
  options.wedged_after_ms = 1200;  // a step of 128 tokens takes 1.9 s, in two groups of layers
  Cluster cluster(options);
  Collector collector(1);
  cluster.router().Generate(MakeRequest(1, 128, 2), collector.Sink(0));
  while (!collector.WaitAll(0)) {
    ASSERT_EQ(cluster.Snapshot(0).state, "ready");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(collector.answers()[0].tokens.size(), 2u);
}

// ---- sequences of which workers die ----

// The worker that decodes the only sequence.
size_t BusyWorker(Cluster& cluster) {
  for (int i = 0; i < 1000; ++i) {
    for (const WorkerSnapshot& worker : cluster.router().Workers()) {
      if (worker.dispatched_sequences > 0) return worker.id.value - 1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ADD_FAILURE() << "nobody has it";
  return 0;
}

void DieAndComeBack(Cluster& cluster, size_t index, bool self_inflicted) {
  cluster.StopWorker(index, self_inflicted);
  cluster.Announce();
  cluster.StartWorker(index);
  cluster.Announce();
  cluster.WaitState(index, "ready");
}

TEST(LivenessTest, WhoSurvivedTwoDeathsRunsAloneAndIsRefusedAfterTheThird) {
  Cluster cluster({.workers = {{proto::HYBRID}, {proto::HYBRID}}, .profile = {.step_us = 10000}});
  const Request deadly = MakeRequest(5, 40, 400);
  Collector collector(2);
  cluster.router().Generate(deadly, collector.Sink(0));
  ASSERT_TRUE(collector.WaitTokens(0, 2));
  for (size_t tokens : {4u, 6u}) {
    DieAndComeBack(cluster, BusyWorker(cluster), true);
    ASSERT_TRUE(collector.WaitTokens(0, tokens));  // it goes on each time
  }
  const size_t alone = BusyWorker(cluster);
  for (int i = 0; i < 4; ++i) {  // others come, and are kept away from it
    RunAll(cluster, {MakeRequest(20 + i, 40, 2)}, false);
    EXPECT_EQ(cluster.Snapshot(alone).dispatched_sequences, 1);
    EXPECT_EQ(cluster.router().Decisions().back().chosen.decode.value - 1, 1 - alone);
  }
  DieAndComeBack(cluster, alone, true);
  for (int i = 0; i < 500 && collector.answers()[0].finish == FinishReason::kNone; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const Answer answer = collector.answers()[0];
  EXPECT_EQ(answer.finish, FinishReason::kError);
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kInternal) << answer.status;
  EXPECT_NE(std::string(Message(answer.status)).find("request-5"), std::string::npos) << answer.status;
  cluster.router().Generate(deadly, collector.Sink(1));  // a client that tries again
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[1].status.code(), absl::StatusCode::kInternal);
  RunAll(cluster, {MakeRequest(6, 40, 2)}, false);  // the others go on
  cluster.ExpectNothingLeft();
}

TEST(LivenessTest, DeathsByOrderAreNobodysFault) {
  Cluster cluster({.workers = {{proto::HYBRID}, {proto::HYBRID}}, .profile = {.step_us = 10000}});
  Collector collector(1);
  cluster.router().Generate(MakeRequest(5, 40, 400), collector.Sink(0));
  for (size_t death = 1; death <= 4; ++death) {
    ASSERT_TRUE(collector.WaitTokens(0, 2 * death));
    DieAndComeBack(cluster, BusyWorker(cluster), false);
  }
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[0].finish, FinishReason::kLength) << collector.answers()[0].status;
  EXPECT_EQ(collector.answers()[0].tokens.size(), 400u);
  cluster.ExpectNothingLeft();
}

TEST(LivenessTest, AnInnocentThatSawTwoDeathsFinishesAlone) {
  Cluster cluster({.workers = {{proto::HYBRID}, {proto::HYBRID}}, .profile = {.step_us = 10000}});
  Collector collector(2);
  cluster.router().Generate(MakeRequest(5, 40, 400), collector.Sink(0));
  for (size_t death = 1; death <= 2; ++death) {
    ASSERT_TRUE(collector.WaitTokens(0, 2 * death));
    DieAndComeBack(cluster, BusyWorker(cluster), true);
  }
  ASSERT_TRUE(collector.WaitTokens(0, 10));
  cluster.StopWorker(1 - BusyWorker(cluster));  // the only other one: what comes now waits for the lonely one's end
  cluster.Announce();
  cluster.router().Generate(MakeRequest(6, 40, 4), collector.Sink(1));
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[0].tokens.size(), 400u) << collector.answers()[0].status;
  EXPECT_EQ(collector.answers()[1].tokens.size(), 4u) << collector.answers()[1].status;
}

}  // namespace
}  // namespace baton
