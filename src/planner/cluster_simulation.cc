#include "planner/cluster_simulation.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <utility>

#include "base/log.h"
#include "kv/block_pool.h"
#include "planner/virtual_time.h"
#include "router/routing_state.h"
#include "scheduler/scheduler.h"

namespace baton {
namespace {

constexpr uint64_t kSecret = 0x5eed;
constexpr char kFingerprint[] = "simulated";
// Two messages, and what remains of the copy after the last layer: as the selector expects.
constexpr double kExposedTransferShare = 0.25;

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  LogError("simulation: ", Message(value.status()));
  std::abort();
}

}  // namespace

class ClusterSimulation::State {
 public:
  explicit State(const ClusterSimulationOptions& options)
      : options_(options), routing_(options.targets, options.max_local_prefill_tokens) {
    for (const SimulatedWorkerOptions& worker : options_.workers) AddWorker(worker);
  }

  std::vector<RequestResult> Run(std::vector<SimulatedRequest> requests) {
    streams_.resize(requests.size());
    results_.resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      streams_[i].request = std::move(requests[i]);
      if (options_.users == 0) time_.At(streams_[i].request.arrival_ms, [this, i] { Arrive(i); });
    }
    for (; next_user_request_ < static_cast<size_t>(options_.users); ++next_user_request_) ArriveNext();
    time_.Run();
    return std::move(results_);
  }

 private:
  struct Node;
  // One step at a time, whoever of its workers makes it.
  struct SharedEngine {
    bool busy = false;
    std::vector<Node*> nodes;
  };

  struct Node {
    WorkerId id;
    std::shared_ptr<SharedEngine> engine;
    const SimulatedWorkerOptions* options = nullptr;
    std::unique_ptr<BlockPool> pool;
    std::unique_ptr<Scheduler> scheduler;
    double status_at_ms = -1e9;
    std::deque<size_t> wait_for_room;         // streams of others' prefill: before it is asked for
    std::deque<size_t> wait_for_reservation;  // and after it began
    int64_t promised_blocks = 0;              // to prefills that were asked for and hold no reservation yet
  };

  struct Stream {
    SimulatedRequest request;
    std::vector<BlockHash> blocks;
    Placement placement;
    bool remote = false;
    bool started = false;        // on P
    bool reserved = false;       // on D
    bool prefilled = false;      // P holds it
    bool ended = false;          // with its first token: nothing is handed over
    int64_t missing_tokens = 0;  // on D
    TokenId first_token = 0;
    int32_t tokens = 0;
    double first_ms = 0;
    double last_ms = 0;
  };

  void AddWorker(const SimulatedWorkerOptions& options) {
    const std::shared_ptr<SharedEngine> engine = EngineOf(options);
    Node& node = *nodes_.emplace_back(std::make_unique<Node>());
    node.id = {nodes_.size()};
    node.engine = engine;
    node.engine->nodes.push_back(&node);
    node.options = &options;
    node.pool = std::make_unique<BlockPool>(static_cast<int32_t>(options.gpu.kv_tokens / options_.block_size),
                                            options_.block_size);
    SchedulerOptions scheduler{.max_batch_tokens = options.prefill_chunk_tokens + options.max_sequences,
                               .max_sequences = options.max_sequences,
                               .prefill_chunk_tokens = options.prefill_chunk_tokens,
                               .prefill_budget = options.prefill_budget,
                               .max_model_len = 1 << 20,
                               .prefix_caching = options_.prefix_caching,
                               .hash_secret = kSecret,
                               .fingerprint = kFingerprint,
                               .targets = options_.targets,
                               .step_times = MeasuredTable(options.gpu)};
    node.scheduler = Must(Scheduler::Create(scheduler, *node.pool));
    WorkerView& view = routing_.Add(node.id, options.role);
    view.step_times = scheduler.step_times;
    view.prefill_chunk_tokens = options.prefill_chunk_tokens;
    view.prefill_budget = options.prefill_budget;
    if (options_.price_shared_engines) view.engine = options.engine;
    view.kv_bytes_per_token = options.gpu.kv_bytes_per_token;
    for (size_t i = 0; i < options_.workers.size(); ++i) {
      view.paths.push_back({.prefill = {i + 1}, .gigabytes_per_second = PathSpeed(options, options_.workers[i])});
    }
    Report(node);
  }

  double PathSpeed(const SimulatedWorkerOptions& to, const SimulatedWorkerOptions& from) const {
    const bool same = to.engine != 0 && to.engine == from.engine;
    return same ? std::numeric_limits<double>::infinity() : options_.path_gigabytes_per_second;
  }

  Node& NodeOf(WorkerId id) { return *nodes_[id.value - 1]; }

  // ---- requests ----

  void ArriveNext() {
    const size_t i = next_arrival_++;
    if (i < streams_.size()) time_.After(0, [this, i] { Arrive(i); });
  }

  RouteRequest RouteFor(const Stream& stream) const {
    return {.prompt_tokens = static_cast<int64_t>(stream.request.prompt.size()),
            .max_tokens = stream.request.output_tokens,
            .blocks = stream.blocks,
            .block_size = options_.block_size};
  }

  void Arrive(size_t i) {
    Stream& stream = streams_[i];
    RequestResult& result = results_[i];
    result.arrival_ms = time_.now_ms();
    result.prompt_tokens = static_cast<int32_t>(stream.request.prompt.size());
    if (options_.prefix_caching) {
      stream.blocks = HashBlocks(RootHash(kSecret, kFingerprint, ""), stream.request.prompt, options_.block_size);
    }
    std::vector<Selection> ranked =
        routing_.Rank(RouteFor(stream), options_.routing == RoutingPolicy::kOracle ? SIZE_MAX : 1);
    Selection chosen = ranked.front();
    int32_t best = 0;
    for (const auto& node : nodes_) best = std::max(best, CachedTokens(*node, stream));
    result.best_cached_tokens = best;
    if (options_.routing == RoutingPolicy::kOracle) {
      for (const Selection& selection : ranked) {
        if (CachedTokens(NodeOf(selection.prefill.value_or(selection.decode)), stream) < best) continue;
        chosen = selection;
        break;
      }
    }
    stream.placement = routing_.Dispatched(chosen, RouteFor(stream));
    stream.remote = chosen.prefill.has_value();
    result.prefilled_remotely = stream.remote;
    time_.After(options_.message_ms, [this, i] { Start(i); });
  }

  // Of the prompt, that the worker's cache holds or that it is computing; the last token is always computed.
  int32_t CachedTokens(const Node& node, const Stream& stream) const {
    const int32_t found = node.pool->CountPrefix(stream.blocks, stream.request.prompt) * options_.block_size;
    return std::min(found, static_cast<int32_t>(stream.request.prompt.size()) - 1);
  }

  Request ToRequest(size_t i) const {
    const SimulatedRequest& from = streams_[i].request;
    Request request{.id = std::to_string(i), .prompt = from.prompt, .user = from.user, .priority = from.priority};
    request.sampling.max_tokens = from.output_tokens;
    request.sampling.ignore_eos = true;
    return request;
  }

  void Start(size_t i) {
    Stream& stream = streams_[i];
    Node& decode = NodeOf(stream.placement.decode);
    if (stream.remote) {
      decode.wait_for_room.push_back(i);
      AskForPrefills(decode);
      return;
    }
    if (!decode.scheduler->Add({i + 1}, ToRequest(i), SequenceKind::kLocal).ok()) return Refuse(i);
    Kick(decode);
  }

  void Refuse(size_t i) {
    results_[i].refused = true;
    Finish(i);
  }

  // Head-room on D before P spends its time; first come, first served.
  void AskForPrefills(Node& decode) {
    while (!decode.wait_for_room.empty()) {
      const size_t i = decode.wait_for_room.front();
      const int64_t needed = decode.pool->BlocksFor(static_cast<int64_t>(streams_[i].request.prompt.size()) + 1);
      const bool idle = !decode.scheduler->HasWork() && decode.promised_blocks == 0;
      if (!idle && decode.scheduler->ExpectedFreeBlocks() - decode.promised_blocks < needed) return;
      decode.wait_for_room.pop_front();
      decode.promised_blocks += needed;
      time_.After(options_.message_ms, [this, i] {
        Node& prefill = NodeOf(streams_[i].placement.prefill);
        if (!prefill.scheduler->Add({i + 1}, ToRequest(i), SequenceKind::kPrefillOnly).ok()) return Refuse(i);
        Kick(prefill);
      });
    }
  }

  void Reserve(Node& decode) {
    while (!decode.wait_for_reservation.empty()) {
      const size_t i = decode.wait_for_reservation.front();
      if (streams_[i].ended) {
        decode.wait_for_reservation.pop_front();
        decode.promised_blocks -= decode.pool->BlocksFor(results_[i].prompt_tokens + 1);
        continue;
      }
      const auto reservation = decode.scheduler->ReserveRemote({i + 1}, ToRequest(i));
      if (absl::IsResourceExhausted(reservation.status())) return;
      decode.wait_for_reservation.pop_front();
      Stream& stream = streams_[i];
      decode.promised_blocks -= decode.pool->BlocksFor(results_[i].prompt_tokens + 1);
      if (!reservation.ok()) return Refuse(i);
      stream.reserved = true;
      stream.missing_tokens = static_cast<int64_t>(stream.request.prompt.size()) - reservation->cached_tokens;
      if (stream.prefilled) Transfer(i);
    }
  }

  void Transfer(size_t i) {
    const Stream& stream = streams_[i];
    const Node& decode = NodeOf(stream.placement.decode);
    const double bytes = static_cast<double>(stream.missing_tokens * decode.options->gpu.kv_bytes_per_token);
    const double speed = PathSpeed(*decode.options, *NodeOf(stream.placement.prefill).options);
    const double copy_ms = kExposedTransferShare * bytes / (speed * 1e6);
    time_.After(copy_ms + options_.message_ms, [this, i] {
      Stream& stream = streams_[i];
      Node& prefill = NodeOf(stream.placement.prefill);
      Node& decode = NodeOf(stream.placement.decode);
      (void)prefill.scheduler->Release({i + 1});
      (void)decode.scheduler->AddPrefilled({i + 1}, std::span(&stream.first_token, 1));
      Kick(prefill);
      Kick(decode);
    });
  }

  // A token reaches the client.
  void Deliver(size_t i, bool last) {
    Stream& stream = streams_[i];
    RequestResult& result = results_[i];
    if (stream.tokens == 0) {
      stream.first_ms = time_.now_ms();
      result.ttft_ms = time_.now_ms() - result.arrival_ms;
      routing_.FirstToken(stream.placement, RouteFor(stream));
    } else {
      result.gap_ms_max = std::max(result.gap_ms_max, time_.now_ms() - stream.last_ms);
    }
    stream.last_ms = time_.now_ms();
    stream.tokens += 1;
    if (!last) return;
    if (stream.tokens > 1) result.tpot_ms = (time_.now_ms() - stream.first_ms) / (stream.tokens - 1);
    Finish(i);
  }

  void Finish(size_t i) {
    results_[i].end_ms = time_.now_ms();
    routing_.Ended(streams_[i].placement, RouteFor(streams_[i]));
    streams_[i].blocks = {};
    streams_[i].request.prompt = {};
    if (options_.users > 0) ArriveNext();
  }

  // ---- workers ----

  void Kick(Node& node) {
    if (node.engine->busy) return;
    auto plan = std::make_shared<StepPlan>(node.scheduler->Schedule());
    if (plan->batch.items.empty()) return;
    node.engine->busy = true;
    NoteStarted(*plan);
    time_.After(node.options->gpu.StepUs(ShapeOf(*plan)) / 1e3,
                [this, &node, plan, began = time_.now_ms()] { EndStep(node, *plan, time_.now_ms() - began); });
  }

  // D reserves when P has started.
  void NoteStarted(const StepPlan& plan) {
    for (size_t k = 0; k < plan.items.size(); ++k) {
      if (plan.items[k].kind != SequenceKind::kPrefillOnly) continue;
      const size_t i = plan.batch.items[k].sequence.value - 1;
      if (std::exchange(streams_[i].started, true)) continue;
      results_[i].cached_tokens = plan.batch.items[k].start;
      time_.After(options_.message_ms, [this, i] {
        Node& decode = NodeOf(streams_[i].placement.decode);
        decode.wait_for_reservation.push_back(i);
        Reserve(decode);
      });
    }
  }

  void EndStep(Node& node, const StepPlan& plan, double took_ms) {
    node.engine->busy = false;
    StepOutput output;
    output.items.resize(plan.batch.items.size());
    output.duration_us = static_cast<int64_t>(took_ms * 1e3);
    for (size_t k = 0; k < output.items.size(); ++k) output.items[k].sampled.token = static_cast<TokenId>(k);
    for (const SequenceEvent& event : node.scheduler->Commit(plan, std::move(output))) OnEvent(event);
    for (Node* other : node.engine->nodes) {
      if (other != &node) other->scheduler->NoteOthersStep(took_ms * 1e3);
    }
    Publish(node);
    AskForPrefills(node);
    Reserve(node);
    // The next one's turn; the last is this one's again.
    std::vector<Node*>& nodes = node.engine->nodes;
    std::ranges::rotate(nodes, std::ranges::find(nodes, &node) + 1);
    for (Node* next : nodes) Kick(*next);
  }

  std::shared_ptr<SharedEngine> EngineOf(const SimulatedWorkerOptions& options) const {
    for (const auto& other : nodes_) {
      if (options.engine != 0 && other->options != nullptr && other->options->engine == options.engine)
        return other->engine;
    }
    return std::make_shared<SharedEngine>();
  }

  void OnEvent(const SequenceEvent& event) {
    const size_t i = event.sequence.value - 1;
    Stream& stream = streams_[i];
    if (event.first && !stream.remote) results_[i].cached_tokens = event.cached_tokens;
    const bool last = event.finish != FinishReason::kNone;
    time_.After(options_.message_ms, [this, i, last] { Deliver(i, last); });
    if (last && event.first && stream.remote) {
      stream.ended = true;
      if (stream.reserved) {
        (void)NodeOf(stream.placement.decode).scheduler->AbandonRemote({i + 1}, ReservedBlocks::kFree);
      }
    }
    if (!event.held) return;
    stream.prefilled = true;
    stream.first_token = event.sampled.token;
    if (stream.reserved) Transfer(i);
  }

  void Publish(Node& node) {
    auto batch = std::make_shared<CacheEventBatch>(node.pool->TakeEvents());
    if (!batch->changes.empty() || batch->snapshot_needed) {
      time_.After(options_.message_ms, [this, &node, batch] {
        if (batch->snapshot_needed || routing_.index().Apply(node.id, batch->first, batch->changes)) {
          const CacheSnapshot snapshot = node.pool->Snapshot();
          routing_.index().ApplySnapshot(node.id, snapshot.sequence, snapshot.blocks, true, true);
        }
      });
    }
    if (time_.now_ms() - node.status_at_ms >= options_.status_ms) Report(node);
  }

  void Report(Node& node) {
    node.status_at_ms = time_.now_ms();
    WorkerView& view = *routing_.Find(node.id);
    const BlockPoolStats blocks = node.pool->Stats();
    view.context_tokens = int64_t{blocks.used} * options_.block_size;
    view.free_kv_tokens = int64_t{blocks.free + blocks.cached} * options_.block_size;
    view.step_times.factor = node.scheduler->step_times().factor;
  }

  const ClusterSimulationOptions options_;
  RoutingState routing_;
  std::vector<std::unique_ptr<Node>> nodes_;  // [worker id − 1]
  std::vector<Stream> streams_;
  std::vector<RequestResult> results_;
  VirtualTime time_;
  size_t next_arrival_ = 0;
  size_t next_user_request_ = 0;
};

ClusterSimulation::ClusterSimulation(const ClusterSimulationOptions& options)
    : state_(std::make_unique<State>(options)) {}

ClusterSimulation::~ClusterSimulation() = default;

std::vector<RequestResult> ClusterSimulation::Run(std::vector<SimulatedRequest> requests) {
  return state_->Run(std::move(requests));
}

}  // namespace baton
