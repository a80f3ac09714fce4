// A whole deployment in one process: router, workers and hand-off over real sessions and shared memory, with simulated
// engines whose answers depend on every byte of the KV cache. The same request must have the same answer in every
// topology, whatever happens to workers.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/random.h"
#include "engine/sim_engine.h"
#include "router/router.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {

struct WorkerConfig {
  proto::Role role = proto::HYBRID;
  int32_t num_blocks = 512;
  bool beside = false;  // on the engine and the pool of the worker before: one process
};

// Stops in the middle of a step while it is told to.
class FreezableEngine : public Engine, private LayerGroupSink {
 public:
  FreezableEngine(std::unique_ptr<Engine> inner, const std::atomic<bool>& frozen)
      : inner_(std::move(inner)), frozen_(frozen) {}
  const EngineInfo& info() const override { return inner_->info(); }
  KvMemory kv_memory() override { return inner_->kv_memory(); }
  absl::Status Submit(const Batch& batch, LayerGroupSink* sink) override {
    sinks_.push_back(sink);
    most_in_flight_ = std::max(most_in_flight_.load(), sinks_.size());
    return inner_->Submit(batch, this);
  }
  size_t most_in_flight() const { return most_in_flight_; }
  absl::StatusOr<StepOutput> Collect() override {
    auto output = inner_->Collect();
    sinks_.pop_front();
    return output;
  }
  absl::Status CopyBlock(BlockId from, BlockId to) override { return inner_->CopyBlock(from, to); }

 private:
  void OnLayersDone(const Batch& batch, int32_t begin, int32_t end, void* event) override {
    while (frozen_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (sinks_.front() != nullptr) sinks_.front()->OnLayersDone(batch, begin, end, event);
  }

  const std::unique_ptr<Engine> inner_;
  const std::atomic<bool>& frozen_;
  std::deque<LayerGroupSink*> sinks_;  // of the steps in flight, which run in order
  std::atomic<size_t> most_in_flight_ = 0;
};

struct ClusterOptions {
  std::vector<WorkerConfig> workers;
  SimProfile profile;
  int32_t block_size = 16;
  int32_t chunk = 64;
  int32_t max_sequences = 32;
  bool prefix_caching = true;
  double throttle_gbps = 0;
  int32_t corrupt_every = 0;  // piece of a hand-off
  bool verify_kv = false;
  // Most tests are about hand-overs: prompts above a block are not prefilled where they decode. -1: the dial.
  int64_t max_local_prefill_tokens = 16;
  int32_t cache_event_capacity = 65536;
  int32_t lose_cache_changes_every = 0;
  int64_t wedged_after_ms = 5000;
  int32_t beat_ms = 20;
  // Engines take a step while one runs, and workers give them one. ctest runs these tests both ways.
  bool run_ahead = std::getenv("BATON_TEST_RUN_AHEAD") != nullptr;
};

inline std::unique_ptr<Transport> MakeTransport(const ClusterOptions& options) {
  auto transport = MakeSharedMemoryTransport();
  if (options.throttle_gbps > 0 || options.corrupt_every > 0) {
    transport = MakeThrottledTransport(std::move(transport), {.bytes_per_second = options.throttle_gbps * 1e9,
                                                              .corrupt_every = options.corrupt_every});
  }
  return transport;
}

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options) : options_(options) {
    std::string folder = std::filesystem::temp_directory_path() / "baton-cluster-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    network_ = *Network::Create(Beats());
    RouterOptions router_options{.model_name = "sim"};
    router_options.report_lost = [this](const proto::WorkerLost& lost) { lost_.push_back(lost.worker()); };
    router_options.wait_for_worker_ms = 3000;
    router_options.max_local_prefill_tokens = options.max_local_prefill_tokens;
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
    host.network = *Network::Create(Beats());
    auto engine = *CreateSimEngine({.profile = options_.profile,
                                    .num_blocks = options_.workers[nodes_[index]->host].num_blocks,
                                    .block_size = options_.block_size,
                                    .max_batch_tokens = 256,
                                    .max_sequences = 32,
                                    .run_ahead = options_.run_ahead});
    host.engine = std::make_unique<FreezableEngine>(std::move(engine), host.frozen);
    host.transport = MakeTransport(options_);
    host.loop = std::make_unique<StepLoop>(*host.engine, options_.cache_event_capacity);
    for (const size_t member : MembersOf(nodes_[index]->host)) CreateWorker(host, member);
    host.thread = std::thread([&host] { EXPECT_TRUE(host.loop->Run().ok()); });
  }

  // Its step loop hangs; with `all`, its network thread does too, as that of a process that was stopped.
  void Freeze(size_t index, bool all = true) {
    Node& node = *nodes_[index];
    node.frozen = true;
    if (!all) return;
    node.network->Post([&node] {
      while (node.frozen) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  }
  void Thaw(size_t index) { nodes_[index]->frozen = false; }
  // What the kernel would say of a process that is silent.
  void set_process_state(ProcessState state) { process_state_ = state; }
  WorkerSnapshot Snapshot(size_t index) { return router_->Workers()[index]; }
  bool WaitState(size_t index, const std::string& state) {
    for (int i = 0; i < 1000; ++i) {
      if (Snapshot(index).state == state) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "worker " << index << " is " << Snapshot(index).state << ", not " << state;
    return false;
  }
  // Who was reported as lost by the router, and by worker `index`. After the network's threads have ended or said so.
  std::vector<uint64_t> lost() const { return lost_; }
  std::vector<uint64_t> lost(size_t index) const { return nodes_[index]->lost; }
  size_t stuck() const { return stuck_; }

  // As the supervisor would see a death: everything of it is gone, and everybody is told.
  void StopWorker(size_t index, bool self_inflicted = false) {
    Node& host = *nodes_[nodes_[index]->host];
    if (!host.alive) return;
    const std::vector<size_t> members = MembersOf(nodes_[index]->host);
    host.frozen = false;
    host.loop->Stop();
    host.thread.join();
    for (const size_t member : members) nodes_[member]->worker->Disconnect();
    host.network.reset();
    for (const size_t member : members) {
      nodes_[member]->alive = false;
      nodes_[member]->self_inflicted = self_inflicted;
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
      if (nodes_[i]->alive) continue;
      member->set_death("was ended by the test");
      member->set_self_inflicted(nodes_[i]->self_inflicted);
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
  // Steps of worker `index`, so far.
  size_t most_in_flight(size_t index) const { return nodes_[nodes_[index]->host]->engine->most_in_flight(); }

 private:
  struct Node {
    uint64_t incarnation = 0;
    bool alive = false;
    bool self_inflicted = false;
    std::atomic<bool> frozen = false;
    std::vector<uint64_t> lost;  // that it reported
    size_t host = 0;             // whose engine it has; what follows is the host's, but for the worker
    std::unique_ptr<Network> network;
    std::unique_ptr<FreezableEngine> engine;
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
                                .run_ahead = options_.run_ahead,
                                .eos = {1}};
    worker_options.abort_on_leak = true;
    worker_options.verify_kv = options_.verify_kv;
    worker_options.lose_cache_changes_every = options_.lose_cache_changes_every;
    worker_options.watchdog.wedged_after_ms = options_.wedged_after_ms;
    worker_options.on_stuck = [this, index](const std::string&) { stuck_ = index; };
    worker_options.report_lost = [&node](const proto::WorkerLost& lost) { node.lost.push_back(lost.worker()); };
    node.worker = *Worker::Create(*host.network, *host.loop, *host.transport, worker_options);
    node.alive = true;
  }
  std::string Address(size_t index) const { return "unix:" + folder_.string() + "/worker-" + std::to_string(index); }

  NetworkOptions Beats() {
    return {.watch = {.interval_ms = options_.beat_ms}, .look = [this](int32_t) { return process_state_.load(); }};
  }

  const ClusterOptions options_;
  std::atomic<ProcessState> process_state_ = ProcessState::kActive;
  std::atomic<size_t> stuck_ = SIZE_MAX;
  std::vector<uint64_t> lost_;
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

inline Request MakeRequest(int index, int prompt_tokens, int max_tokens) {
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

inline std::vector<Request> Workload() {
  std::vector<Request> requests;
  for (int i = 0; i < 24; ++i) requests.push_back(MakeRequest(i, 5 + (i * 37) % 300, 1 + (i * 13) % 40));
  return requests;
}

inline std::vector<Answer> RunAll(Cluster& cluster, const std::vector<Request>& requests, bool one_by_one) {
  Collector collector(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    cluster.router().Generate(requests[i], collector.Sink(i));
    if (one_by_one) collector.WaitTokens(i, 1);
  }
  EXPECT_TRUE(collector.WaitAll());
  return collector.answers();
}

inline const std::vector<Answer>& Expected() {
  static const std::vector<Answer> answers = [] {
    Cluster cluster({.workers = {{proto::HYBRID}}, .prefix_caching = false, .run_ahead = false});
    return RunAll(cluster, Workload(), true);
  }();
  return answers;
}

inline void ExpectSame(const std::vector<Answer>& answers) {
  ASSERT_EQ(answers.size(), Expected().size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, Expected()[i].tokens) << "request " << i << ": " << answers[i].status;
    EXPECT_EQ(answers[i].finish, Expected()[i].finish) << "request " << i << ": " << answers[i].status;
  }
}

using Roles = std::vector<proto::Role>;

}  // namespace baton
