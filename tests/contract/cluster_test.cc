// Folders: router worker engine rpc transfer scheduler
// A whole deployment in one process: router, workers and hand-off over real sessions and shared memory, with simulated
// engines whose answers depend on every byte of the KV cache. The same request must have the same answer in every
// topology.
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "core/random.h"
#include "engine/sim_engine.h"
#include "router/router.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {
namespace {

struct WorkerConfig {
  proto::Role role = proto::HYBRID;
  int32_t num_blocks = 512;
};

struct ClusterOptions {
  std::vector<WorkerConfig> workers;
  SimProfile profile;
  int32_t block_size = 16;
  int32_t chunk = 64;
  bool prefix_caching = true;
  double throttle_gbps = 0;
  // Most tests are about hand-overs: prompts above a block are not prefilled where they decode. -1: the dial.
  int64_t max_local_prefill_tokens = 16;
  int32_t cache_event_capacity = 65536;
  int32_t lose_cache_changes_every = 0;
};

std::unique_ptr<Transport> MakeTransport(double throttle_gbps) {
  auto transport = MakeSharedMemoryTransport();
  if (throttle_gbps > 0)
    transport = MakeThrottledTransport(std::move(transport), {.bytes_per_second = throttle_gbps * 1e9});
  return transport;
}

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options) : options_(options) {
    std::string folder = std::filesystem::temp_directory_path() / "baton-cluster-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    network_ = *Network::Create();
    RouterOptions router_options{.model_name = "sim"};
    router_options.wait_for_worker_ms = 3000;
    router_options.max_local_prefill_tokens = options.max_local_prefill_tokens;
    router_ = std::make_unique<Router>(*network_, metrics_, router_options);
    for (size_t i = 0; i < options.workers.size(); ++i) {
      nodes_.push_back(std::make_unique<Node>());
      StartWorker(i);
    }
    Announce();
    WaitHealthy();
  }

  ~Cluster() {
    for (size_t i = 0; i < nodes_.size(); ++i) StopWorker(i);
    router_->Disconnect();
    network_.reset();
    router_.reset();
    std::filesystem::remove_all(folder_);
  }

  void StartWorker(size_t index) {
    Node& node = *nodes_[index];
    const WorkerConfig& config = options_.workers[index];
    node.incarnation += 1;
    node.network = *Network::Create();
    node.engine = *CreateSimEngine({.profile = options_.profile,
                                    .num_blocks = config.num_blocks,
                                    .block_size = options_.block_size,
                                    .max_batch_tokens = 256,
                                    .max_sequences = 32});
    node.transport = MakeTransport(options_.throttle_gbps);
    WorkerOptions worker_options{.id = {index + 1},
                                 .incarnation = node.incarnation,
                                 .role = config.role,
                                 .process = "worker-" + std::to_string(index),
                                 .address = Address(index)};
    worker_options.scheduler = {.max_batch_tokens = 256,
                                .max_sequences = 32,
                                .prefill_chunk_tokens = options_.chunk,
                                .max_model_len = 4096,
                                .prefix_caching = options_.prefix_caching,
                                .eos = {1}};
    worker_options.abort_on_leak = true;
    worker_options.cache_event_capacity = options_.cache_event_capacity;
    worker_options.lose_cache_changes_every = options_.lose_cache_changes_every;
    node.worker = *Worker::Create(*node.network, *node.engine, *node.transport, worker_options);
    node.thread = std::thread([&node] { EXPECT_TRUE(node.worker->Run().ok()); });
    node.alive = true;
  }

  // As the supervisor would see a death: everything of it is gone, and everybody is told.
  void StopWorker(size_t index) {
    Node& node = *nodes_[index];
    if (!node.alive) return;
    node.alive = false;
    node.worker->Stop();
    node.thread.join();
    node.worker->Disconnect();
    node.network.reset();
    node.worker.reset();
    node.transport.reset();
    node.engine.reset();
  }

  void Announce() {
    proto::Members members;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      proto::Member* member = members.add_members();
      member->set_worker(i + 1);
      member->set_incarnation(nodes_[i]->incarnation);
      member->set_role(options_.workers[i].role);
      member->set_process("worker-" + std::to_string(i));
      member->set_address(Address(i));
      member->set_state(nodes_[i]->alive ? proto::Member::READY : proto::Member::DEAD);
    }
    std::promise<void> done;
    network_->Post([&] {
      router_->OnMembers(members);
      done.set_value();
    });
    done.get_future().wait();
    for (auto& node : nodes_) {
      if (node->alive) node->worker->OnMembers(members);
    }
  }

  void WaitHealthy() {
    for (int i = 0; i < 500; ++i) {
      bool all = router_->Health().ok();
      for (const WorkerSnapshot& worker : router_->Workers())
        all &= worker.state == "dead" || worker.status.blocks_total() > 0;
      if (all) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the cluster did not become healthy";
  }

  // Until no worker holds a sequence or a reservation; then nothing may be in use.
  void ExpectNothingLeft() {
    for (int i = 0; i < 500; ++i) {
      bool quiet = true;
      for (const WorkerSnapshot& worker : router_->Workers()) {
        const proto::WorkerStatus& s = worker.status;
        quiet &= s.running() + s.waiting() + s.held() + s.reservations_held() + s.blocks_fenced() == 0 &&
                 s.blocks_free() + s.blocks_cached() == s.blocks_total();
      }
      if (quiet) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    for (const WorkerSnapshot& worker : router_->Workers())
      ADD_FAILURE() << worker.process << ": " << worker.status.ShortDebugString();
  }

  // The router's index of each worker is what that worker's pool has.
  void ExpectExactIndex() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      std::vector<BlockHash> pool, index;
      for (int attempt = 0; attempt < 300; ++attempt) {  // changes travel
        pool = nodes_[i]->worker->PublishedBlocks();
        index = router_->IndexedBlocks({i + 1});
        if (index == pool) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      EXPECT_EQ(index, pool) << "worker " << i;
      EXPECT_FALSE(pool.empty()) << "worker " << i;
    }
    for (const WorkerSnapshot& worker : router_->Workers()) {
      EXPECT_EQ(worker.index.state, KvIndex::State::kExact);
      EXPECT_EQ(worker.index.dispatched, 0);
    }
  }

  Router& router() { return *router_; }

 private:
  struct Node {
    uint64_t incarnation = 0;
    bool alive = false;
    std::unique_ptr<Network> network;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Transport> transport;
    std::unique_ptr<Worker> worker;
    std::thread thread;
  };
  std::string Address(size_t index) const { return "unix:" + folder_.string() + "/worker-" + std::to_string(index); }

  const ClusterOptions options_;
  std::filesystem::path folder_;
  std::unique_ptr<Network> network_;
  MetricRegistry metrics_;
  std::unique_ptr<Router> router_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

struct Answer {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kNone;
  absl::Status status;
  Waterfall waterfall;
  std::chrono::steady_clock::time_point first_token, second_token;
  bool operator==(const Answer& other) const { return tokens == other.tokens && finish == other.finish; }
};

// Collects the answers of several requests.
class Collector {
 public:
  TokenSink Sink(size_t index) {
    return [this, index](TokenEvent event) {
      std::lock_guard lock(mutex_);
      Answer& answer = answers_[index];
      if (!event.tokens.empty()) EXPECT_EQ(event.position, static_cast<int32_t>(answer.tokens.size()));
      for (const SampledToken& token : event.tokens) {
        if (answer.tokens.empty()) answer.first_token = std::chrono::steady_clock::now();
        if (answer.tokens.size() == 1) answer.second_token = std::chrono::steady_clock::now();
        answer.tokens.push_back(token.token);
      }
      if (event.waterfall.decode_worker != 0) answer.waterfall = event.waterfall;
      if (event.finish == FinishReason::kNone) return changed_.notify_all();
      EXPECT_EQ(answer.finish, FinishReason::kNone) << "a second last event";
      answer.finish = event.finish;
      answer.status = event.status;
      finished_ += 1;
      changed_.notify_all();
    };
  }
  explicit Collector(size_t count) : answers_(count) {}

  bool WaitAll(int seconds = 30) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(seconds), [&] { return finished_ == answers_.size(); });
  }
  // Until so many have finished.
  bool WaitFinished(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return finished_ >= count; });
  }
  bool WaitTokens(size_t index, size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return answers_[index].tokens.size() >= count; });
  }
  std::vector<Answer> answers() {
    std::lock_guard lock(mutex_);
    return answers_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Answer> answers_;
  size_t finished_ = 0;
};

Request MakeRequest(int index, int prompt_tokens, int max_tokens) {
  Request request{.id = "request-" + std::to_string(index)};
  // Every third request shares a prefix with the others.
  const uint64_t stream = index % 3 == 0 ? 7 : 1000 + index;
  for (int i = 0; i < prompt_tokens; ++i)
    request.prompt.push_back(static_cast<TokenId>(2 + KeyedBits(stream, 0, i) % 30000));
  request.prompt.back() = 2 + index;
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = index % 2 == 0 ? 0.0f : 1.0f;
  request.sampling.seed = 99 + index;
  return request;
}

std::vector<Request> Workload() {
  std::vector<Request> requests;
  for (int i = 0; i < 24; ++i) requests.push_back(MakeRequest(i, 5 + (i * 37) % 300, 1 + (i * 13) % 40));
  return requests;
}

std::vector<Answer> RunAll(Cluster& cluster, const std::vector<Request>& requests, bool one_by_one) {
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    cluster.router().Generate(requests[i], collector.Sink(i));
    if (one_by_one) collector.WaitTokens(i, 1);
  }
  EXPECT_TRUE(collector.WaitAll());
  return collector.answers();
}

const std::vector<Answer>& Expected() {
  static const std::vector<Answer> answers = [] {
    Cluster cluster({.workers = {{proto::HYBRID}}, .prefix_caching = false});
    return RunAll(cluster, Workload(), true);
  }();
  return answers;
}

void ExpectSame(const std::vector<Answer>& answers) {
  ASSERT_EQ(answers.size(), Expected().size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, Expected()[i].tokens) << "request " << i << ": " << answers[i].status;
    EXPECT_EQ(answers[i].finish, Expected()[i].finish) << "request " << i << ": " << answers[i].status;
  }
}

using Roles = std::vector<proto::Role>;
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

TEST(ClusterTest, APromptThatCanNeverFitIsRefused) {
  Cluster cluster({.workers = {{proto::PREFILL, 64}, {proto::DECODE, 64}}});
  const auto answers = RunAll(cluster, {MakeRequest(1, 3000, 50)}, false);
  EXPECT_EQ(answers[0].finish, FinishReason::kError);
  EXPECT_FALSE(answers[0].status.ok());
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
  Cluster cluster({.workers = workers, .profile = {.prefill_us_per_token = 300}});
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(MakeRequest(3 * i + 1, 100, 2));  // 30 ms each, nothing shared
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
  EXPECT_LE(Overtaken(answers, 11), 4);  // what had begun before it came
  EXPECT_LE(Overtaken(answers, 10), 6);
}

TEST(ClusterTest, PrioritiesAndTurnsHoldForTheDecodeWorkersRoom) {
  const std::vector<Answer> answers = RunQueue({{proto::PREFILL}, {proto::DECODE, 16}});  // room for two prompts
  EXPECT_LE(Overtaken(answers, 11), 4);
  EXPECT_LE(Overtaken(answers, 10), 6);
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
