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
  bool beside = false;  // on the engine and the pool of the worker before: one process
};

struct ClusterOptions {
  std::vector<WorkerConfig> workers;
  SimProfile profile;
  int32_t block_size = 16;
  int32_t chunk = 64;
  int32_t max_sequences = 32;
  bool prefix_caching = true;
  double throttle_gbps = 0;
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
    router_ = std::make_unique<Router>(*network_, metrics_, router_options);
    for (const WorkerConfig& config : options.workers) {
      const bool beside = config.beside && !nodes_.empty();
      nodes_.push_back(std::make_unique<Node>());
      nodes_.back()->host = beside ? nodes_[nodes_.size() - 2]->host : nodes_.size() - 1;
    }
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i]->host == i) StartWorker(i);
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

  // With everybody who shares its engine.
  void StartWorker(size_t index) {
    Node& host = *nodes_[nodes_[index]->host];
    host.network = *Network::Create();
    host.engine = *CreateSimEngine({.profile = options_.profile,
                                    .num_blocks = options_.workers[nodes_[index]->host].num_blocks,
                                    .block_size = options_.block_size,
                                    .max_batch_tokens = 256,
                                    .max_sequences = 32});
    host.transport = MakeTransport(options_.throttle_gbps);
    host.loop = std::make_unique<StepLoop>(*host.engine);
    for (const size_t member : MembersOf(nodes_[index]->host)) CreateWorker(host, member);
    host.thread = std::thread([&host] { EXPECT_TRUE(host.loop->Run().ok()); });
  }

  // As the supervisor would see a death: everything of it is gone, and everybody is told.
  void StopWorker(size_t index) {
    Node& host = *nodes_[nodes_[index]->host];
    if (!host.alive) return;
    const std::vector<size_t> members = MembersOf(nodes_[index]->host);
    host.loop->Stop();
    host.thread.join();
    for (const size_t member : members) nodes_[member]->worker->Disconnect();
    host.network.reset();
    for (const size_t member : members) {
      nodes_[member]->alive = false;
      nodes_[member]->worker.reset();
    }
    host.loop.reset();
    host.transport.reset();
    host.engine.reset();
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

  Router& router() { return *router_; }

 private:
  struct Node {
    uint64_t incarnation = 0;
    bool alive = false;
    size_t host = 0;  // whose engine it has; what follows is the host's, but for the worker
    std::unique_ptr<Network> network;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Transport> transport;
    std::unique_ptr<StepLoop> loop;
    std::unique_ptr<Worker> worker;
    std::thread thread;
  };
  std::vector<size_t> MembersOf(size_t host) const {
    std::vector<size_t> members;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i]->host == host) members.push_back(i);
    }
    return members;
  }
  void CreateWorker(Node& host, size_t index) {
    Node& node = *nodes_[index];
    node.incarnation += 1;
    WorkerOptions worker_options{.id = {index + 1},
                                 .incarnation = node.incarnation,
                                 .role = options_.workers[index].role,
                                 .process = "worker-" + std::to_string(index),
                                 .address = Address(index)};
    worker_options.scheduler = {.max_batch_tokens = 256,
                                .max_sequences = options_.max_sequences,
                                .prefill_chunk_tokens = options_.chunk,
                                .max_model_len = 4096,
                                .prefix_caching = options_.prefix_caching,
                                .eos = {1}};
    worker_options.abort_on_leak = true;
    node.worker = *Worker::Create(*host.network, *host.loop, *host.transport, worker_options);
    node.alive = true;
  }
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
  cluster.ExpectNothingLeft();
  const WorkerSnapshot decode = cluster.router().Workers()[1];
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
