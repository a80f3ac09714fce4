#include "worker/worker.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/log.h"
#include "base/wake_batch.h"
#include "rpc/convert.h"

namespace baton {

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(Network& network, StepLoop& loop, Transport& transport,
                                                       WorkerOptions options) {
  std::unique_ptr<Worker> worker(new Worker(network, loop, transport, std::move(options)));
  BATON_RETURN_IF_ERROR(worker->Init(transport));
  return worker;
}

Worker::Worker(Network& network, StepLoop& loop, const Transport& transport, WorkerOptions options)
    : network_(network),
      loop_(loop),
      engine_(loop.engine()),
      pool_(loop.pool()),
      inbox_(loop.inbox()),
      options_(std::move(options)),
      watchdog_(network, transport, options_.watchdog,
                [this](const std::string& reason) {
                  if (options_.on_stuck) options_.on_stuck(reason);
                }),
      connector_(loop.MakeConnector(network)),
      rates_(options_.prefill_tokens_per_second),
      recorded_steps_(options_.step_record, options_.step_record_part) {
  loop_.Join(*this);
}

Worker::~Worker() { loop_.Leave(*this); }

void Worker::Disconnect() {
  watchdog_.Stop();
  listener_.reset();
  connector_.reset();
}

proto::Hello Worker::Self() const {
  proto::Hello self;
  self.set_worker(options_.id.value);
  self.set_incarnation(options_.incarnation);
  self.set_process(options_.process);
  self.set_fingerprint(engine_.info().fingerprint);
  self.set_block_size(engine_.info().kv.block_size);
  return self;
}

absl::Status Worker::Init(Transport& transport) {
  const EngineInfo& info = engine_.info();
  options_.scheduler.fingerprint = info.fingerprint;
  BATON_ASSIGN_OR_RETURN(scheduler_, Scheduler::Create(options_.scheduler, pool_));
  const KvMemory memory = engine_.kv_memory();
  BATON_ASSIGN_OR_RETURN(
      exported_, transport.Export({.base = memory.base, .bytes = memory.bytes, .shareable_fd = memory.shareable_fd}));
  prefill_ = std::make_unique<PrefillHandoff>(
      transport,
      PrefillHandoffOptions{.fingerprint = info.fingerprint,
                            .layout = info.kv,
                            .memory = memory,
                            .min_path_gbps = options_.min_path_gbps,
                            .worker = options_.id.value,
                            .incarnation = options_.incarnation},
      PrefillHandoffActions{
          .abort =
              [this](SequenceId sequence) { inbox_.Post([this, sequence] { (void)scheduler_->Abort(sequence); }); },
          .release =
              [this](SequenceId sequence) { inbox_.Post([this, sequence] { (void)scheduler_->Release(sequence); }); },
          .share = [this](SequenceId sequence) { return ShareBlocks(sequence); }});
  decode_ = std::make_unique<DecodeHandoff>(
      *connector_, inbox_, *scheduler_, pool_, streams_,
      DecodeHandoffOptions{.self = Self(),
                           .layout = info.kv,
                           .pool_descriptor = exported_.descriptor,
                           .pool_fd = exported_.fd,
                           .connect_early = options_.role != proto::PREFILL,
                           .epoch_base = options_.incarnation << 40,
                           .last_word_ms = options_.last_word_ms,
                           .verify = options_.verify_kv ? memory.base : nullptr,
                           .report_lost = [this](WorkerId worker, uint64_t incarnation, const std::string& reason) {
                             proto::WorkerLost lost;
                             lost.set_worker(worker.value);
                             lost.set_incarnation(incarnation);
                             lost.set_reason(reason);
                             if (options_.report_lost) options_.report_lost(lost);
                           }});
  BATON_ASSIGN_OR_RETURN(listener_, network_.Listen(options_.address, [this](std::shared_ptr<Session> session) {
    return Accept(session);
  }));
  return absl::OkStatus();
}

void Worker::OnMembers(const proto::Members& members) {
  inbox_.Post([this, members] { decode_->OnMembers(members); });
}

std::vector<BlockId> Worker::ShareBlocks(SequenceId sequence) {
  const Sequence* found = scheduler_->Find(sequence);
  if (found == nullptr) return {};
  for (const BlockId block : found->blocks) pool_.Ref(block);
  return found->blocks;
}

// ---- messages ----

SessionEvents Worker::Accept(const std::shared_ptr<Session>& session) {
  return {.on_frame = [this, session](std::string_view frame, UniqueFd fd) { OnFrame(session, frame, std::move(fd)); },
          .on_closed = [this, session](absl::Status) { OnClosed(session); }};
}

void Worker::OnFrame(const std::shared_ptr<Session>& session, std::string_view frame, UniqueFd fd) {
  auto envelope = std::make_shared<proto::Envelope>();
  if (const absl::Status status = ParseEnvelope(frame, *envelope); !status.ok()) {
    LogError("from ", session->peer(), ": ", Message(status));
    return session->Close();
  }
  // Who hears of a step loop that hangs must not wait for it, either.
  if (envelope->has_hello()) watchdog_.AddFrontEnd(session);
  // These two do not wait for the end of the step.
  if (envelope->has_reservation()) return prefill_->OnReservation(session, envelope->reservation());
  if (envelope->has_cancel_prefill()) {
    // Through the inbox first, so that it cannot overtake its own Prefill.
    inbox_.Post([this, session, epoch = envelope->cancel_prefill().epoch()] { prefill_->OnCancel(session, epoch); });
    return prefill_->OnCancel(session, envelope->cancel_prefill().epoch());
  }
  auto shared_fd = std::make_shared<UniqueFd>(std::move(fd));
  inbox_.Post([this, session, envelope, shared_fd] { OnMessage(session, *envelope, std::move(*shared_fd)); });
}

void Worker::OnMessage(const std::shared_ptr<Session>& session, const proto::Envelope& envelope, UniqueFd fd) {
  watchdog_.Progress();
  switch (envelope.body_case()) {
    case proto::Envelope::kHello:
      return OnHello(session);
    case proto::Envelope::kGenerate:
      return OnGenerate(session, envelope.generate());
    case proto::Envelope::kCancel:
      if (const auto sequence = streams_.FindStream(session, envelope.cancel().stream())) {
        CancelSequence(*sequence, FinishReason::kCancelled, Cancelled("cancelled by the client"));
      }
      return;
    case proto::Envelope::kCacheSnapshotRequest:
      loop_.PublishCacheChanges();
      return SendCacheSnapshot({session});
    case proto::Envelope::kResetPrefixCache:
      return pool_.ClearCache();
    case proto::Envelope::kPoolOffer:
      return prefill_->OnPoolOffer(session, envelope.pool_offer(), std::move(fd));
    case proto::Envelope::kPrefill:
      return OnPrefill(session, envelope.prefill());
    default:
      LogWarning("unexpected message ", static_cast<int>(envelope.body_case()), " from ", session->peer());
  }
}

void Worker::OnClosed(const std::shared_ptr<Session>& session) {
  watchdog_.RemoveFrontEnd(session);
  inbox_.Post([this, session] {
    prefill_->OnSessionClosed(session);
    for (const SequenceId sequence : streams_.OfSession(session)) {
      if (!decode_->Cancel(sequence)) (void)scheduler_->Abort(sequence);
    }
    streams_.DropSession(session);
    std::erase(front_ends_, session);
  });
}

absl::Status Worker::Admit(SequenceId sequence, Request request, SequenceKind kind) {
  if (scheduler_->Counts().waiting >= options_.max_waiting) {
    return ResourceExhausted(options_.process, ": ", options_.max_waiting, " sequences wait already");
  }
  BATON_RETURN_IF_ERROR(CheckTokens(request));
  return scheduler_->Add(sequence, std::move(request), kind);
}

// The front end has checked what clients sent; this keeps a strange message from reaching the engine.
absl::Status Worker::CheckTokens(const Request& request) const {
  const int32_t vocabulary = engine_.info().vocabulary;
  const auto outside = [&](TokenId token) { return token < 0 || token >= vocabulary; };
  const bool bad_bias = std::any_of(request.sampling.logit_bias.begin(), request.sampling.logit_bias.end(),
                                    [&](const auto& entry) { return outside(entry.first); });
  if (std::any_of(request.prompt.begin(), request.prompt.end(), outside) ||
      std::any_of(request.generated.begin(), request.generated.end(), outside) || bad_bias) {
    return InvalidArgument("request ", request.id, ": a token outside the vocabulary of ", vocabulary);
  }
  return absl::OkStatus();
}

void Worker::OnGenerate(const std::shared_ptr<Session>& session, const proto::Generate& generate) {
  absl::StatusOr<Request> request = FromProto(generate.request());
  if (!request.ok()) return StreamTable::Refuse(*session, generate.stream(), request.status());
  const SequenceId sequence{++next_sequence_};
  ActiveStream stream{.session = session,
                      .stream = generate.stream(),
                      .request_id = request->id,
                      .prompt_tokens = static_cast<int32_t>(request->prompt.size()),
                      .received = Clock::now()};
  if (request->timeout_ms > 0) stream.deadline = stream.received + std::chrono::milliseconds(request->timeout_ms);
  stream.waterfall.decode_worker = options_.id.value;
  stream.waterfall.prefill_worker = options_.id.value;
  streams_.Add(sequence, std::move(stream));
  unchecked_ = true;
  absl::Status checked = CheckTokens(*request);
  // What can never fit here shall not cost another worker a prefill.
  if (checked.ok()) checked = scheduler_->Check(*request, SequenceKind::kLocal);
  const bool room = decode_->size() < options_.max_waiting;
  if (checked.ok() && room && generate.has_prefill() && generate.prefill().worker() != options_.id.value) {
    return decode_->Start(sequence, *std::move(request), generate.prefill());
  }
  if (const absl::Status status = Admit(sequence, *std::move(request), SequenceKind::kLocal); !status.ok()) {
    streams_.Report(sequence, {.finish = FinishReason::kError, .status = status});
  }
}

void Worker::OnPrefill(const std::shared_ptr<Session>& session, const proto::Prefill& prefill) {
  if (options_.mute_handoff && options_.incarnation == 1) return;
  const SequenceId sequence{++next_sequence_};
  unchecked_ = true;
  if (!prefill_->OnPrefill(session, prefill.epoch(), sequence).ok()) return;
  absl::StatusOr<Request> request = FromProto(prefill.request());
  const int64_t timeout_ms = request.ok() ? request->timeout_ms : 0;
  const absl::Status status =
      request.ok() ? Admit(sequence, *std::move(request), SequenceKind::kPrefillOnly) : request.status();
  if (!status.ok()) return prefill_->OnRefused(sequence, status);
  if (timeout_ms > 0) prefill_deadlines_[Clock::now() + std::chrono::milliseconds(timeout_ms)].push_back(sequence);
}

void Worker::CancelSequence(SequenceId sequence, FinishReason finish, const absl::Status& why) {
  if (!decode_->Cancel(sequence)) (void)scheduler_->Abort(sequence);
  streams_.Report(sequence, {.finish = finish, .status = why});
}

void Worker::ExpireDeadlines() {
  for (const SequenceId sequence : streams_.Expired(Clock::now())) {
    CancelSequence(sequence, FinishReason::kError, DeadlineExceeded("the request's time is up"));
  }
  // The decode worker says so too, unless it cannot: then nobody waits for this prompt any more.
  if (!prefill_deadlines_.empty() && prefill_->size() == 0) prefill_deadlines_.clear();
  while (!prefill_deadlines_.empty() && prefill_deadlines_.begin()->first <= Clock::now()) {
    for (const SequenceId sequence : prefill_deadlines_.begin()->second) {
      prefill_->OnStepFailed(sequence, DeadlineExceeded("the request's time is up"));
    }
    prefill_deadlines_.erase(prefill_deadlines_.begin());
  }
}

// ---- the step loop ----

absl::StatusOr<bool> Worker::SubmitStep() {
  ExpireDeadlines();
  prefill_->ExpireHolds(Clock::now());
  decode_->CloseSilent(Clock::now());
  for (;;) {  // a step that cannot even be submitted ends its sequences
    plans_.push_back(scheduler_->Schedule());
    const StepPlan& plan = plans_.back();
    NotePreemptions();
    if (plan.batch.items.empty()) break;
    NoteScheduled(plan);
    prefill_->OnPlan(plan);
    recorded_steps_.Begin(plan, *scheduler_);
    // Somebody who waits for layers keeps a device from running the step as one graph: only prefills say
    // how far they are.
    absl::Status submitted = engine_.Submit(plan.batch, plan.prefill_tokens > 0 ? this : nullptr);
    if (submitted.ok()) return true;
    const StepPlan failed = std::move(plans_.back());
    plans_.pop_back();
    BATON_RETURN_IF_ERROR(Finish(failed, std::move(submitted)));
    recorded_steps_.Abandon();
  }
  plans_.pop_back();
  return false;
}

void Worker::EndTurn() {
  decode_->Retry();
  const WakeBatch batch;  // a router gets what follows at once
  loop_.PublishCacheChanges();
  streams_.Flush();
  ReportStatus(false);
}

double Worker::FewestMicroseconds() const {
  return plans_.empty() || plans_.back().prefill_tokens > 0 ? 0.0 : rates_.fewest_decode_step_us();
}

void Worker::OnLayersDone(const Batch& batch, int32_t layer_begin, int32_t layer_end, void* event) {
  loop_.NoteProgress();
  prefill_->OnLayersDone(batch, layer_begin, layer_end, event);
}

absl::Status Worker::FinishStep(absl::StatusOr<StepOutput> output, bool follows) {
  const StepPlan plan = std::move(plans_.front());
  plans_.pop_front();
  if (output.ok()) {
    rates_.Add(plan.prefill_tokens, plan.decode_rows, output->duration_us);
    loop_.NoteStep(*this, static_cast<double>(output->duration_us));
  }
  if (output.ok() && follows && output->idle_us > 0) {
    step_gaps_ += 1;
    step_gap_seconds_ += output->idle_us * 1e-6;
  }
  BATON_RETURN_IF_ERROR(Finish(plan, std::move(output)));  // else the process ends, and these are on record
  recorded_steps_.End();
  return absl::OkStatus();
}

absl::Status Worker::Finish(const StepPlan& plan, absl::StatusOr<StepOutput> output) {
  const absl::Status failure = output.status();
  steps_ += 1;
  std::vector<SequenceEvent> events =
      output.ok() ? scheduler_->Commit(plan, *std::move(output)) : scheduler_->Fail(plan);
  for (SequenceEvent& event : events) Deliver(std::move(event), failure);
  if (!absl::IsInternal(failure)) return absl::OkStatus();
  streams_.Flush();
  return failure;
}

void Worker::NotePreemptions() {
  if (std::exchange(seen_preemptions_, scheduler_->preemptions()) == scheduler_->preemptions()) return;
  prefill_->OnPreemptions([this](SequenceId id) {
    const Sequence* sequence = scheduler_->Find(id);
    return sequence != nullptr && sequence->state == SequenceState::kWaiting;
  });
}

void Worker::NoteScheduled(const StepPlan& plan) {
  const Clock::time_point now = Clock::now();
  for (const BatchItem& item : plan.batch.items) {
    ActiveStream* stream = streams_.Find(item.sequence);
    if (stream == nullptr || stream->first_scheduled) continue;
    stream->first_scheduled = now;
    stream->waterfall.queue_us = MicrosecondsBetween(stream->received, now);
  }
}

void Worker::Deliver(SequenceEvent event, const absl::Status& failure) {
  if (event.held || (event.first && event.last && streams_.Find(event.sequence) == nullptr))
    return prefill_->OnFirstToken(event);
  ActiveStream* stream = streams_.Find(event.sequence);
  if (stream == nullptr) {
    if (event.finish == FinishReason::kError) prefill_->OnStepFailed(event.sequence, failure);
    return;  // cancelled while it was being computed
  }
  if (!stream->first_token && event.finish != FinishReason::kError) {
    stream->first_token = Clock::now();
    stream->waterfall.prefill_us = MicrosecondsBetween(*stream->first_scheduled, *stream->first_token);
    stream->waterfall.cached_tokens = event.cached_tokens;
  }
  TokenEvent token{.position = event.position, .finish = event.finish};
  if (event.finish == FinishReason::kError) {
    // Another worker may do better: the router decides.
    token.status = Unavailable(options_.process, ": the step failed: ", Message(failure));
  } else {
    token.tokens.push_back(std::move(event.sampled));
    token.prompt_logprobs = std::move(event.prompt_logprobs);
  }
  streams_.Report(event.sequence, std::move(token));
}

bool Worker::HoldsNothing() const {
  const SchedulerCounts counts = scheduler_->Counts();
  return streams_.size() == 0 && counts.held + counts.reserved == 0;
}

void Worker::OnChecked(const absl::Status& status) {
  unchecked_ = false;
  if (status.ok()) return;
  integrity_error_ = std::string(Message(status));
  LogError("KV blocks do not add up: ", integrity_error_);
  if (options_.abort_on_leak) std::abort();
}

}  // namespace baton
