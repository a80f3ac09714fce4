// Sequences: from Generate through dispatch and replays to the last event. router_members.cc has the workers' side.
#include "router/router.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/wake_batch.h"
#include "router/router_metrics.h"
#include "rpc/convert.h"

namespace baton {
namespace {

constexpr int64_t kSweepMs = 100;
constexpr size_t kShownAlternatives = 3;
constexpr int64_t kBackOffMs = 50;  // after the first attempt that a worker gave up; doubles with each

int64_t RemainingMs(std::chrono::steady_clock::time_point deadline) {
  if (deadline == std::chrono::steady_clock::time_point::max()) return 0;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return std::max<int64_t>(1, left.count());
}

}  // namespace

Router::Router(Network& network, MetricRegistry& metrics, RouterOptions options)
    : network_(network),
      options_(std::move(options)),
      metrics_(std::make_unique<Metrics>(metrics, options_.model_name)),
      connector_(CreateConnector(network)),
      routing_(options_.targets, options_.max_local_prefill_tokens) {}

Router::~Router() = default;

void Router::Disconnect() {
  connector_.reset();
  Deliveries deliveries;
  {
    MutexLock lock(mutex_);
    sweep_.reset();
    for (auto& [handle, stream] : streams_) {
      deliveries.push_back(
          {stream->sink, {.finish = FinishReason::kError, .status = Unavailable("the server is stopping")}});
    }
    streams_.clear();
    attempts_.clear();
  }
  Deliver(std::move(deliveries));
}

void Router::Deliver(Deliveries deliveries) {
  const WakeBatch batch;  // whoever takes the events of a step is woken once
  for (Delivery& delivery : deliveries) (*delivery.sink)(std::move(delivery.event));
}

SequenceId Router::Generate(Request request, TokenSink sink) {
  Deliveries deliveries;
  SequenceId handle;
  {
    MutexLock lock(mutex_);
    handle = {next_name_++};
    auto stream = std::make_unique<Stream>();
    stream->handle = handle;
    stream->request = std::move(request);
    stream->sink = std::make_shared<const TokenSink>(std::move(sink));
    if (stream->request.timeout_ms > 0) {
      stream->deadline = Clock::now() + std::chrono::milliseconds(stream->request.timeout_ms);
    }
    Stream& placed = *(streams_[handle.value] = std::move(stream));
    if (const absl::Status deadly = CheckDeadly(placed.request); !deadly.ok()) {
      Finish(placed, {.finish = FinishReason::kError, .status = deadly}, deliveries);
    } else {
      Dispatch(placed, deliveries);
    }
  }
  // Sinks belong to the network's thread, also for refusals.
  if (!deliveries.empty()) {
    network_.Post([deliveries = std::move(deliveries)]() mutable { Deliver(std::move(deliveries)); });
  }
  return handle;
}

void Router::Cancel(SequenceId sequence) {
  MutexLock lock(mutex_);
  const auto found = streams_.find(sequence.value);
  if (found == streams_.end()) return;
  Stream& stream = *found->second;
  stream.cancelled = true;
  Deliveries deliveries;
  if (!stream.placement.active) {
    Finish(stream, {.finish = FinishReason::kCancelled, .status = Cancelled("cancelled")}, deliveries);
    network_.Post([deliveries = std::move(deliveries)]() mutable { Deliver(std::move(deliveries)); });
    return;
  }
  SendCancel(stream);
}

// One naming for all workers: those of a deployment have one fingerprint, or they exchange no blocks anyway.
void Router::NameBlocks(Stream& stream) {
  if (!stream.blocks.empty()) return;
  for (const auto& [id, worker] : workers_) {
    if (!worker.usable() || !worker.profile.prefix_caching() || worker.profile.block_size() <= 0) continue;
    stream.block_size = worker.profile.block_size();
    stream.blocks = HashBlocks(RootHash(options_.hash_secret, worker.profile.fingerprint(), stream.request.cache_salt),
                               stream.request.prompt, stream.block_size);
    return;
  }
}

RouteRequest Router::RouteFor(const Stream& stream) const {
  const Request& request = stream.request;
  const auto generated = static_cast<int64_t>(request.generated.size());
  return {.prompt_tokens = static_cast<int64_t>(request.prompt.size()) + generated,
          .max_tokens = request.sampling.max_tokens - generated,
          .blocks = stream.blocks,
          .block_size = stream.block_size,
          .reuses_prefix = !request.sampling.prompt_logprobs};
}

bool Router::TryDispatch(Stream& stream) {
  NameBlocks(stream);
  std::vector<Selection> ranked = routing_.Rank(RouteFor(stream), 1 + kShownAlternatives);
  if (ranked.empty()) return false;
  Send(stream, std::move(ranked));
  return true;
}

void Router::Send(Stream& stream, std::vector<Selection> ranked) {
  const Selection chosen = ranked.front();
  stream.attempt = next_name_++;
  stream.attempts += 1;
  stream.attempt_tokens = 0;
  stream.placement = routing_.Dispatched(chosen, RouteFor(stream));
  attempts_[stream.attempt] = &stream;
  Record(stream, std::move(ranked));

  proto::Envelope envelope;
  proto::Generate* generate = envelope.mutable_generate();
  generate->set_stream(stream.attempt);
  ToProto(stream.request, generate->mutable_request());
  generate->mutable_request()->set_timeout_ms(RemainingMs(stream.deadline));
  if (chosen.prefill) *generate->mutable_prefill() = workers_.at(*chosen.prefill).member;
  SendEnvelope(*workers_.at(chosen.decode).session, envelope);
}

void Router::Dispatch(Stream& stream, Deliveries& deliveries) {
  if (stream.quarantined) return Quarantine(stream);
  if (Clock::now() >= stream.held_until && TryDispatch(stream)) return;
  if (workers_.empty() || std::all_of(workers_.begin(), workers_.end(),
                                      [](const auto& entry) { return entry.second.member.role() == proto::PREFILL; })) {
    return Finish(stream, {.finish = FinishReason::kError, .status = Unavailable("there is no worker that decodes")},
                  deliveries);
  }
  stream.parked_since = Clock::now();
  parked_.push_back(stream.handle.value);
  ArmSweep();
}

void Router::DispatchParked(Deliveries& deliveries) {
  const auto now = Clock::now();
  std::deque<uint64_t> parked;
  parked.swap(parked_);
  for (const uint64_t handle : parked) {
    const auto found = streams_.find(handle);
    if (found == streams_.end()) continue;
    Stream& stream = *found->second;
    if (now > stream.deadline) {
      Finish(
          stream,
          {.finish = FinishReason::kError,
           .status = DeadlineExceeded("the request's time was up before a worker could take it (", stream.reason, ")")},
          deliveries);
      continue;
    }
    if (now < stream.held_until) {
      parked_.push_back(handle);
      continue;
    }
    stream.held_for.reset();
    if (stream.quarantined) {  // what it did last will not be known any more
      Quarantine(stream);
      continue;
    }
    if (TryDispatch(stream)) continue;
    if (!quarantined_.empty()) stream.parked_since = now;  // the workers are there, one sequence has them
    if (now - stream.parked_since > std::chrono::milliseconds(options_.wait_for_worker_ms)) {
      Finish(stream,
             {.finish = FinishReason::kError,
              .status = Unavailable("no worker that decodes is ready (", stream.reason, ")")},
             deliveries);
      continue;
    }
    parked_.push_back(handle);
  }
}

void Router::ArmSweep() {
  if (std::exchange(sweep_armed_, true)) return;
  sweep_ = network_.RunAfter(kSweepMs, [this] {
    Deliveries deliveries;
    {
      MutexLock lock(mutex_);
      sweep_armed_ = false;
      Sweep(deliveries);
    }
    Deliver(std::move(deliveries));
  });
}

void Router::Sweep(Deliveries& deliveries) {
  RunQuarantined(deliveries);
  DispatchParked(deliveries);
  if (!parked_.empty() || !quarantined_.empty()) ArmSweep();
}

void Router::Record(const Stream& stream, std::vector<Selection> ranked) {
  RouteDecision decision{
      .request = stream.request.id,
      .prompt_tokens = static_cast<int64_t>(stream.request.prompt.size() + stream.request.generated.size()),
      .attempt = stream.attempts,
      .reason = stream.reason,
      .chosen = ranked.front(),
      .alternatives = {ranked.begin() + 1, ranked.end()}};
  metrics_->CountDecision(decision.chosen.prefill.has_value());
  decisions_.push_back(std::move(decision));
  if (decisions_.size() > options_.max_decisions) decisions_.pop_front();
}

void Router::Undispatch(Stream& stream) {
  if (!stream.placement.active) return;
  attempts_.erase(stream.attempt);
  routing_.Ended(stream.placement, RouteFor(stream));
}

void Router::RetryOrFail(Stream& stream, const absl::Status& why, Deliveries& deliveries) {
  Expose(stream, stream.placement.decode);  // it may be dying
  Undispatch(stream);
  if (++stream.given_up >= options_.max_attempts) {
    return Finish(stream,
                  {.finish = FinishReason::kError,
                   .status = Unavailable("gave up after ", stream.given_up, " attempts; the last one: ", Message(why))},
                  deliveries);
  }
  stream.held_until = Clock::now() + std::chrono::milliseconds(kBackOffMs << (stream.given_up - 1));
  HoldForCause(stream, stream.placement.decode);
  Replay(stream, std::string(Message(why)), deliveries);
}

// Somewhere else, or when there is a worker again. No attempt of it is under way.
void Router::Replay(Stream& stream, const std::string& why, Deliveries& deliveries) {
  if (stream.cancelled) {
    return Finish(stream, {.finish = FinishReason::kCancelled, .status = Cancelled("cancelled")}, deliveries);
  }
  stream.reason = why;
  metrics_->replays.Add(1);
  LogInfo("request ", stream.request.id, ": replaying ", stream.request.generated.size(), " tokens elsewhere: ", why);
  Dispatch(stream, deliveries);
}

void Router::Finish(Stream& stream, TokenEvent event, Deliveries& deliveries) {
  Undispatch(stream);
  if (stream.quarantined) LeaveQuarantine(stream);
  deliveries.push_back({std::move(stream.sink), std::move(event)});
  streams_.erase(stream.handle.value);
}

void Router::OnTokens(const proto::Tokens& tokens, Deliveries& deliveries) {
  deliveries.reserve(deliveries.size() + static_cast<size_t>(tokens.updates_size()));
  for (const proto::TokenUpdate& update : tokens.updates()) {
    const auto found = attempts_.find(update.stream());
    if (found == attempts_.end()) continue;  // an attempt that was given up
    absl::StatusOr<TokenEvent> event = FromProto(update);
    if (!event.ok()) {
      RetryOrFail(*found->second, event.status(), deliveries);
      continue;
    }
    OnUpdate(*found->second, *std::move(event), deliveries);
  }
}

void Router::OnUpdate(Stream& stream, TokenEvent event, Deliveries& deliveries) {
  if (event.finish == FinishReason::kError && absl::IsUnavailable(event.status)) {
    return RetryOrFail(stream, event.status, deliveries);
  }
  if (!event.tokens.empty() && !stream.placement.has_first_token) {
    routing_.FirstToken(stream.placement, RouteFor(stream));
  }
  std::vector<TokenId>& generated = stream.request.generated;
  stream.attempt_tokens += static_cast<int64_t>(event.tokens.size());
  const int64_t known = static_cast<int64_t>(generated.size()) - event.position;
  if (known < 0) {
    return RetryOrFail(stream, Internal("a worker skipped from token ", generated.size(), " to ", event.position),
                       deliveries);
  }
  // What an earlier attempt has already delivered is dropped by position.
  const int64_t repeated = std::min<int64_t>(known, static_cast<int64_t>(event.tokens.size()));
  event.tokens.erase(event.tokens.begin(), event.tokens.begin() + repeated);
  event.position += static_cast<int32_t>(repeated);
  for (const SampledToken& token : event.tokens) generated.push_back(token.token);
  if (event.finish != FinishReason::kNone) return Finish(stream, std::move(event), deliveries);
  if (!event.tokens.empty()) deliveries.push_back({stream.sink, std::move(event)});
}

}  // namespace baton
