// Folders: router worker engine rpc transfer scheduler
// Topologies, cancelling, deadlines and deaths in a deployment of simulated engines.
#include "cluster_fixture.h"

namespace baton {
namespace {

class TopologyTest : public testing::TestWithParam<std::tuple<Roles, bool, int>> {};

TEST_P(TopologyTest, SameTokens) {
  const auto& [roles, prefix_caching, chunk] = GetParam();
  ClusterOptions options{.chunk = chunk, .prefix_caching = prefix_caching};
  for (const proto::Role role : roles) options.workers.push_back({role});
  Cluster cluster(options);
  ExpectSame(RunAll(cluster, Workload(), false));
  ExpectSame(RunAll(cluster, Workload(), false));  // again, with warm caches
  cluster.ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(All, TopologyTest,
                         testing::Combine(testing::Values(Roles{proto::HYBRID}, Roles{proto::PREFILL, proto::DECODE},
                                                          Roles{proto::PREFILL, proto::PREFILL, proto::DECODE},
                                                          Roles{proto::PREFILL, proto::DECODE, proto::DECODE},
                                                          Roles{proto::PREFILL, proto::DECODE, proto::HYBRID}),
                                          testing::Bool(), testing::Values(16, 64)));

// Workers on one engine and one pool: their hand-off moves references.
using Shared = std::vector<WorkerConfig>;
class SharedTopologyTest : public testing::TestWithParam<std::tuple<Shared, bool, int>> {};

TEST_P(SharedTopologyTest, SameTokens) {
  const auto& [workers, prefix_caching, chunk] = GetParam();
  Cluster cluster({.workers = workers, .chunk = chunk, .prefix_caching = prefix_caching});
  ExpectSame(RunAll(cluster, Workload(), false));
  ExpectSame(RunAll(cluster, Workload(), false));
  ExpectSame(RunAll(cluster, Workload(), true));
  cluster.ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(
    All, SharedTopologyTest,
    testing::Combine(
        testing::Values(Shared{{proto::PREFILL}, {proto::DECODE, 0, true}},
                        Shared{{proto::PREFILL}, {proto::PREFILL, 0, true}, {proto::DECODE, 0, true}},
                        Shared{{proto::PREFILL}, {proto::DECODE, 0, true}, {proto::DECODE, 0, true}},
                        Shared{{proto::HYBRID}, {proto::PREFILL, 0, true}},
                        // Two processes with a pair each: hand-offs within and between them.
                        Shared{{proto::PREFILL}, {proto::DECODE, 0, true}, {proto::PREFILL}, {proto::DECODE, 0, true}}),
        testing::Bool(), testing::Values(16, 64)));

const Shared kPair = {{proto::PREFILL}, {proto::DECODE, 0, true}};

TEST(SharedPoolTest, TheHandoffMovesIdsAndNoBytes) {
  Cluster cluster({.workers = kPair});
  const auto answers = RunAll(cluster, {MakeRequest(1, 300, 8)}, true);
  EXPECT_EQ(answers[0].waterfall.prefill_worker, 1u);
  EXPECT_EQ(answers[0].waterfall.decode_worker, 2u);
  EXPECT_EQ(answers[0].waterfall.handoff_bytes, 0);
  EXPECT_EQ(answers[0].waterfall.handoff_path, "ids");
  WorkerSnapshot decode;
  for (int i = 0; i < 500 && decode.status.handoffs() == 0; ++i) {  // it reports ten times a second
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    decode = cluster.Snapshot(1);
  }
  cluster.ExpectNothingLeft();
  EXPECT_EQ(decode.status.handoffs(), 1u);
  ASSERT_EQ(decode.status.paths_size(), 1);
  EXPECT_TRUE(decode.status.paths(0).shared_pool());
}

TEST(SharedPoolTest, BothWorkersFindWhatEitherComputed) {
  Cluster cluster({.workers = kPair});
  Request first = MakeRequest(3, 256, 40), second = first;
  second.prompt.insert(second.prompt.end(), 150, 77);
  RunAll(cluster, {first}, true);
  const auto again = RunAll(cluster, {second}, true);
  EXPECT_GE(again[0].waterfall.cached_tokens, 240);
}

TEST(SharedPoolTest, CancelDuringPrefillFreesEverything) {
  Cluster cluster({.workers = kPair, .profile = {.prefill_us_per_token = 1000}});
  Collector collector(1);
  const SequenceId sequence = cluster.router().Generate(MakeRequest(1, 2000, 50), collector.Sink(0));
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // two seconds of prefill, chunks of 64 ms
  cluster.router().Cancel(sequence);
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[0].finish, FinishReason::kCancelled);
  cluster.ExpectNothingLeft();
}

TEST(SharedPoolTest, CancelsAtAnyTimeLeaveNothing) {
  Cluster cluster({.workers = kPair, .profile = {.step_us = 300, .prefill_us_per_token = 10}});
  const std::vector<Request> requests = Workload();
  for (int round = 0; round < 6; ++round) {
    Collector collector(requests.size());
    std::vector<SequenceId> sequences;
    for (size_t i = 0; i < requests.size(); ++i) {
      sequences.push_back(cluster.router().Generate(requests[i], collector.Sink(i)));
      std::this_thread::sleep_for(std::chrono::microseconds(KeyedBits(round, 1, i) % 3000));
      if (i >= 3) cluster.router().Cancel(sequences[KeyedBits(round, 2, i) % sequences.size()]);
    }
    ASSERT_TRUE(collector.WaitAll());
    cluster.ExpectNothingLeft();
  }
  ExpectSame(RunAll(cluster, requests, false));
}

TEST(SharedPoolTest, ASmallPoolQueuesAndFinishesEverything) {
  Cluster cluster({.workers = {{proto::PREFILL, 40}, {proto::DECODE, 0, true}}});
  ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectNothingLeft();
}

TEST(SharedPoolTest, PrefilledPromptsWaitForAPlaceAmongTheRunning) {
  Cluster cluster({.workers = kPair, .profile = {.step_us = 500}, .max_sequences = 3});
  ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectNothingLeft();
}

TEST(SharedPoolTest, TheDeathOfTheProcessIsReplayed) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE, 0, true}, {proto::HYBRID}},
                   .profile = {.step_us = 2000, .prefill_us_per_token = 50}});
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 3));
  cluster.StopWorker(0);
  cluster.Announce();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  cluster.StartWorker(0);
  cluster.Announce();
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.ExpectNothingLeft();
  ExpectSame(RunAll(cluster, requests, false));
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, LongPromptsAreHandedOver) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}});
  const auto answers = RunAll(cluster, {MakeRequest(1, 300, 8)}, true);
  EXPECT_EQ(answers[0].waterfall.prefill_worker, 1u);
  EXPECT_EQ(answers[0].waterfall.decode_worker, 2u);
  EXPECT_GE(answers[0].waterfall.handoff_bytes, 300 * 64);
  EXPECT_NE(answers[0].waterfall.handoff_path.find("GB/s"), std::string::npos);
}

TEST(ClusterTest, BlocksThatTheDecodeWorkerHasAreNotSent) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}});
  Request first = MakeRequest(3, 256, 4), second = first;
  second.prompt.resize(400, 77);
  const auto one = RunAll(cluster, {first}, true);
  const auto two = RunAll(cluster, {second}, true);
  ASSERT_GT(two[0].waterfall.handoff_bytes, 0);
  EXPECT_LE(two[0].waterfall.handoff_bytes, 160 * 64);  // of 400 tokens 240 were there, in full blocks
  EXPECT_GE(two[0].waterfall.cached_tokens, 240);
}

TEST(ClusterTest, TheFirstTokenPrecedesTheLastBlock) {
  // 512 tokens of 128 bytes at 100 kB/s take two thirds of a second.
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .throttle_gbps = 1e-4});
  const auto answers = RunAll(cluster, {MakeRequest(1, 512, 3)}, true);
  ASSERT_EQ(answers[0].tokens.size(), 3u);
  EXPECT_GT(answers[0].second_token - answers[0].first_token, std::chrono::milliseconds(150));
  EXPECT_GT(answers[0].waterfall.handoff_us, 150000);
}

TEST(ClusterTest, CancelDuringPrefillFreesBothSides) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .profile = {.prefill_us_per_token = 1000}});
  Collector collector(1);
  const SequenceId sequence = cluster.router().Generate(MakeRequest(1, 2000, 50), collector.Sink(0));
  std::this_thread::sleep_for(std::chrono::milliseconds(150));  // two seconds of prefill, chunks of 64 ms
  const auto start = std::chrono::steady_clock::now();
  cluster.router().Cancel(sequence);
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[0].finish, FinishReason::kCancelled);
  cluster.ExpectNothingLeft();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1000));
}

TEST(ClusterTest, CancelDuringHandoffFreesBothSides) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .throttle_gbps = 1e-5});
  Collector collector(1);
  const SequenceId sequence = cluster.router().Generate(MakeRequest(1, 512, 50), collector.Sink(0));
  ASSERT_TRUE(collector.WaitTokens(0, 1));
  cluster.router().Cancel(sequence);
  ASSERT_TRUE(collector.WaitAll());
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, ADeadlineEndsARequestInPrefill) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .profile = {.prefill_us_per_token = 1000}});
  Request request = MakeRequest(1, 2000, 50);
  request.timeout_ms = 200;
  const auto start = std::chrono::steady_clock::now();
  const auto answers = RunAll(cluster, {request}, false);
  EXPECT_EQ(answers[0].finish, FinishReason::kError);
  EXPECT_EQ(answers[0].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1200));
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, CorruptBlocksAreFoundAndComputedAgain) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .corrupt_every = 5, .verify_kv = true});
  ExpectSame(RunAll(cluster, Workload(), false));
  WorkerSnapshot decode;
  for (int i = 0; i < 500 && decode.status.blocks_corrupt() == 0; ++i) {  // it reports ten times a second
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    decode = cluster.Snapshot(1);
  }
  EXPECT_GT(decode.status.blocks_corrupt(), 0u);
  EXPECT_GT(decode.status.blocks_verified(), decode.status.blocks_corrupt());
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, APromptThatCanNeverFitIsRefused) {
  Cluster cluster({.workers = {{proto::PREFILL, 64}, {proto::DECODE, 64}}});
  const auto answers = RunAll(cluster, {MakeRequest(1, 3000, 50)}, false);
  EXPECT_EQ(answers[0].finish, FinishReason::kError);
  EXPECT_EQ(answers[0].status.code(), absl::StatusCode::kInvalidArgument) << answers[0].status;
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, ASmallDecodePoolQueuesAndFinishesEverything) {
  Cluster cluster({.workers = {{proto::PREFILL, 512}, {proto::DECODE, 40}}});
  ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, TheDeathOfAPrefillWorkerIsRecomputed) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .profile = {.prefill_us_per_token = 200}});
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  cluster.StopWorker(0);
  cluster.Announce();
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, TheDeathOfADecodeWorkerIsReplayedElsewhere) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}, {proto::DECODE}}, .profile = {.step_us = 2000}});
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 3));
  cluster.StopWorker(1);
  cluster.Announce();
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, ARestartedDecodeWorkerServesWhatWaited) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}, .profile = {.step_us = 2000}});
  const std::vector<Request> requests = Workload();
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  ASSERT_TRUE(collector.WaitTokens(1, 3));
  cluster.StopWorker(1);
  cluster.Announce();
  cluster.StartWorker(1);
  cluster.Announce();
  ASSERT_TRUE(collector.WaitAll());
  ExpectSame(collector.answers());
  cluster.ExpectNothingLeft();
}

TEST(ClusterTest, TheRoutersIndexIsWhatThePoolsHave) {
  // Pools are small: blocks are evicted all the time.
  Cluster cluster({.workers = {{proto::PREFILL, 60}, {proto::DECODE, 60}, {proto::HYBRID, 60}}});
  for (int round = 0; round < 3; ++round) ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectExactIndex();
  for (const WorkerSnapshot& worker : cluster.router().Workers()) EXPECT_EQ(worker.index.gaps, 0u);
  cluster.router().ResetPrefixCaches();
  for (int i = 0; i < 300 && cluster.router().IndexedBlocks({1}).size() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(cluster.router().IndexedBlocks({1}).empty());
}

TEST(ClusterTest, LostChangesLeadToASnapshotAndAnExactIndex) {
  Cluster cluster({.workers = {{proto::PREFILL, 60}, {proto::DECODE, 60}}, .lose_cache_changes_every = 3});
  for (int round = 0; round < 3; ++round) ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectExactIndex();
  uint64_t gaps = 0, snapshots = 0;
  for (const WorkerSnapshot& worker : cluster.router().Workers()) {
    gaps += worker.index.gaps;
    snapshots += worker.index.snapshots;
  }
  EXPECT_GT(gaps, 5u);
  EXPECT_GT(snapshots, 5u);
}

TEST(ClusterTest, ALogThatOverflowsLeadsToASnapshot) {
  Cluster cluster({.workers = {{proto::HYBRID, 60}}, .chunk = 128, .cache_event_capacity = 4});
  for (int round = 0; round < 3; ++round) ExpectSame(RunAll(cluster, Workload(), false));
  cluster.ExpectExactIndex();
  EXPECT_GT(cluster.router().Workers()[0].index.snapshots, 5u);
}

// 50 prefixes of 2,000 tokens, four workers, four requests in flight.
TEST(ClusterTest, SharedPrefixesAreFound) {
  Cluster cluster(
      {.workers = {{proto::HYBRID, 8000}, {proto::HYBRID, 8000}, {proto::HYBRID, 8000}, {proto::HYBRID, 8000}},
       .profile = {.step_us = 200, .prefill_us_per_token = 5},
       .chunk = 128,
       .max_local_prefill_tokens = -1});
  constexpr int kPrefixes = 50, kPrefixTokens = 2000, kRequests = 400, kInFlight = 4;
  std::vector<int> seen(kPrefixes, 0);
  int64_t possible = 0;
  Collector collector(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    const int prefix = static_cast<int>(KeyedBits(3, 0, i) % kPrefixes);
    Request request{.id = "reuse-" + std::to_string(i)};
    for (int t = 0; t < kPrefixTokens; ++t) {
      request.prompt.push_back(static_cast<TokenId>(2 + KeyedBits(500 + prefix, 0, t) % 30000));
    }
    for (int t = 0; t < 40; ++t) request.prompt.push_back(static_cast<TokenId>(2 + KeyedBits(9000 + i, 0, t) % 30000));
    request.sampling.max_tokens = 4;
    if (seen[prefix]++ > 0) possible += kPrefixTokens / 16 * 16;
    if (i >= kInFlight) collector.WaitFinished(static_cast<size_t>(i - kInFlight + 1));
    cluster.router().Generate(request, collector.Sink(static_cast<size_t>(i)));
  }
  ASSERT_TRUE(collector.WaitAll(60));
  int64_t found = 0;
  for (const Answer& answer : collector.answers()) found += answer.waterfall.cached_tokens;
  EXPECT_GE(static_cast<double>(found), 0.98 * static_cast<double>(possible)) << found << " of " << possible;
  cluster.ExpectExactIndex();
}

// How many of the others had their first token before this one.
int Overtaken(const std::vector<Answer>& answers, size_t index) {
  return static_cast<int>(std::ranges::count_if(
      answers, [&](const Answer& other) { return other.first_token < answers[index].first_token; }));
}

// The last two of twelve prompts that come at once: one of another user, one of higher priority.
std::vector<Answer> RunQueue(const std::vector<WorkerConfig>& workers) {
  Cluster cluster({.workers = workers, .profile = {.prefill_us_per_token = 1000}});
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(MakeRequest(3 * i + 1, 60, 2));  // 60 ms each, nothing shared; four in a step
    requests.back().user = i == 10 ? "few" : "many";
    requests.back().priority = i == 11 ? -1 : 0;
  }
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) cluster.router().Generate(requests[i], collector.Sink(i));
  EXPECT_TRUE(collector.WaitAll());
  return collector.answers();
}

TEST(ClusterTest, PrioritiesAndTurnsHoldOnPrefillWorkers) {
  const std::vector<Answer> answers = RunQueue({{proto::PREFILL}, {proto::DECODE}});
  EXPECT_LE(Overtaken(answers, 11), 5);  // what had begun before it came
  EXPECT_LE(Overtaken(answers, 10), 8);  // and those of the same step; first come, first served would be 11
}

TEST(ClusterTest, PrioritiesAndTurnsHoldForTheDecodeWorkersRoom) {
  const std::vector<Answer> answers = RunQueue({{proto::PREFILL}, {proto::DECODE, 16}});  // room for four prompts
  EXPECT_LE(Overtaken(answers, 11), 5);
  EXPECT_LE(Overtaken(answers, 10), 8);
}

TEST(RunAheadTest, StepsAreSubmittedWhileOneRunsWhereTheEngineTakesThem) {
  for (const bool run_ahead : {false, true}) {
    Cluster cluster(
        {.workers = {{proto::PREFILL}, {proto::DECODE}}, .profile = {.step_us = 300}, .run_ahead = run_ahead});
    ExpectSame(RunAll(cluster, Workload(), false));
    EXPECT_EQ(cluster.most_in_flight(0), 1u) << "a prompt's step waits for the one before";
    EXPECT_EQ(cluster.most_in_flight(1), run_ahead ? 2u : 1u);
    cluster.ExpectNothingLeft();
  }
}

// The next step is chosen towards the end of the one in flight.
TEST(RunAheadTest, WhoComesWhileAStepRunsIsPartOfTheNext) {
  Cluster cluster({.workers = {{proto::HYBRID}}, .profile = {.step_us = 150000}, .run_ahead = true});
  Collector collector(2);
  const SequenceId running = cluster.router().Generate(MakeRequest(1, 5, 60), collector.Sink(0));
  ASSERT_TRUE(collector.WaitTokens(0, 12));  // enough steps to know how long one takes
  const size_t before = collector.answers()[0].tokens.size();
  cluster.router().Generate(MakeRequest(2, 5, 1), collector.Sink(1));
  ASSERT_TRUE(collector.WaitTokens(1, 1));
  EXPECT_LE(collector.answers()[0].tokens.size(), before + 2) << "the step that ran, and its own";
  cluster.router().Cancel(running);
  ASSERT_TRUE(collector.WaitAll());
}

TEST(ClusterTest, NobodyToDecodeIsAnErrorWithAReason) {
  Cluster cluster({.workers = {{proto::PREFILL}, {proto::DECODE}}});
  cluster.StopWorker(1);
  cluster.Announce();
  EXPECT_FALSE(cluster.router().Health().ok());
  Collector collector(1);
  cluster.router().Generate(MakeRequest(1, 100, 5), collector.Sink(0));
  ASSERT_TRUE(collector.WaitAll());
  EXPECT_EQ(collector.answers()[0].status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace baton
