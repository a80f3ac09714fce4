#include "worker/prefill_handoff.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "core/block_digest.h"
#include "rpc/convert.h"
#include "rpc/envelope.h"

namespace baton {
namespace {

int64_t MicrosecondsSince(PrefillHandoff::Clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::microseconds>(PrefillHandoff::Clock::now() - then).count();
}

void SendQuiesced(Session& session, uint64_t epoch, const absl::Status& reason) {
  proto::Envelope envelope;
  envelope.mutable_quiesced()->set_epoch(epoch);
  if (!reason.ok()) ToProto(reason, envelope.mutable_quiesced()->mutable_reason());
  SendEnvelope(session, envelope);
}

}  // namespace

PrefillHandoff::PrefillHandoff(Transport& transport, PrefillHandoffOptions options, PrefillHandoffActions actions)
    : transport_(transport),
      options_(std::move(options)),
      actions_(std::move(actions)),
      side_(options_.incarnation, options_.layout.num_layers) {}

PrefillHandoff::~PrefillHandoff() {
  // Copies in flight call back: let them end while everything that they touch is still here.
  std::vector<std::shared_ptr<RemoteMemory>> pools;
  {
    MutexLock lock(mutex_);
    for (const auto& [session, peer] : peers_) pools.push_back(peer.pool);
    for (auto& [tag, prompt] : prompts_) {
      pools.push_back(prompt.pool);
      if (prompt.pool != nullptr) prompt.pool->Cancel({tag}, [] {});
    }
  }
  for (const std::shared_ptr<RemoteMemory>& pool : pools) {
    if (pool != nullptr) pool->Flush();
  }
}

// ---- decode workers ----

absl::StatusOr<PathReport> PrefillHandoff::Accept(const proto::PoolOffer& offer, UniqueFd fd,
                                                  std::shared_ptr<RemoteMemory>& pool) {
  bool meant = false;
  {
    MutexLock lock(mutex_);
    meant = side_.IsMeant(offer.to_incarnation());
  }
  if (!meant) {
    return FailedPrecondition("the offer is for incarnation ", offer.to_incarnation(), " of this worker, and this is ",
                              options_.incarnation, "; connect again when the members are known");
  }
  if (offer.owner().fingerprint() != options_.fingerprint) {
    return FailedPrecondition("the KV caches differ: ", options_.fingerprint, " here, ", offer.owner().fingerprint(),
                              " on ", offer.owner().process(),
                              "; both workers must run the same model, KV type and block size");
  }
  if (offer.block_bytes() != options_.layout.block_bytes()) {
    return FailedPrecondition("blocks of ", options_.layout.block_bytes(), " bytes here, of ", offer.block_bytes(),
                              " there");
  }
  BATON_ASSIGN_OR_RETURN(pool, transport_.Import(offer.pool(), std::move(fd)));
  std::vector<CopyRange> ranges;
  for (int32_t i = 0; i < offer.probe_blocks_size(); ++i) {
    const int64_t bytes = options_.layout.block_bytes();
    const uint8_t* from = options_.memory.base + i * bytes % (options_.memory.bytes - bytes + 1);
    ranges.push_back({.from = from, .to_offset = offer.probe_blocks(i) * bytes, .bytes = bytes});
  }
  if (ranges.empty()) return PathReport{.transport = transport_.name()};  // no room to measure just now
  BATON_ASSIGN_OR_RETURN(PathReport report, ProbePath(transport_, *pool, ranges, {0}));
  if (report.gigabytes_per_second > 0 && report.gigabytes_per_second < options_.min_path_gbps) {
    return FailedPrecondition("the path is too slow: ", report.Text(), ", and --min-path-gbps asks for ",
                              options_.min_path_gbps);
  }
  return report;
}

void PrefillHandoff::OnPoolOffer(const std::shared_ptr<Session>& session, const proto::PoolOffer& offer, UniqueFd fd) {
  {
    MutexLock lock(mutex_);
    if (!side_.TakesOffer(NameOf(session))) return LogWarning("a second pool was offered by ", session->peer());
  }
  Peer peer{.shared_pool = session->within_process(), .verify = offer.verify()};
  const absl::StatusOr<PathReport> report =
      peer.shared_pool ? PathReport{.transport = "ids"} : Accept(offer, std::move(fd), peer.pool);
  if (!report.ok()) {
    peer.pool.reset();  // waits until no byte of the probe moves any more: the blocks are free after the answer
    // Never InvalidArgument: that would blame the request.
    peer.refused = FailedPrecondition(Message(report.status()));
  }
  proto::Envelope envelope;
  proto::PathMeasured* measured = envelope.mutable_path_measured();
  measured->mutable_path()->set_prefill_worker(options_.worker);
  if (report.ok()) {
    measured->mutable_path()->set_transport(peer.shared_pool ? report->transport : report->Text());
    measured->mutable_path()->set_shared_pool(peer.shared_pool);
    measured->mutable_path()->set_gigabytes_per_second(report->gigabytes_per_second);
    if (report->below_floor) measured->mutable_path()->set_warning(report->advice);
  } else {
    ToProto(peer.refused, measured->mutable_refused());
  }
  {
    MutexLock lock(mutex_);
    const PrefillSide::Session name = NameOf(session);
    peers_[name] = std::move(peer);
    side_.Open(name, report.ok());
  }
  SendEnvelope(*session, envelope);
}

PrefillSide::Session PrefillHandoff::NameOf(const std::shared_ptr<Session>& session) {
  PrefillSide::Session& name = names_[session.get()];
  if (name == 0) name = next_name_++;
  return name;
}

void PrefillHandoff::OnSessionClosed(const std::shared_ptr<Session>& session) {
  MutexLock lock(mutex_);
  const auto name = names_.find(session.get());
  if (name == names_.end()) return;  // of a front end
  for (const PrefillDecision& decision : side_.OnClosed(name->second)) {
    Execute(decision, {.why = Cancelled("the decode worker is gone")});
  }
  peers_.erase(name->second);
  names_.erase(name);
}

// ---- events of one prompt ----

absl::Status PrefillHandoff::OnPrefill(const std::shared_ptr<Session>& session, uint64_t epoch, SequenceId sequence) {
  MutexLock lock(mutex_);
  const PrefillSide::Session name = NameOf(session);
  const auto [asked, tag] = side_.Ask(name, epoch, sequence);
  if (asked == PrefillSide::Asked::kAccepted) {
    const Peer& peer = peers_.at(name);
    prompts_[tag] = {.session = session,
                     .pool = peer.pool,
                     .shared_pool = peer.shared_pool,
                     .verify = peer.verify,
                     .epoch = epoch,
                     .sequence = sequence,
                     .received = Clock::now()};
    return absl::OkStatus();
  }
  if (asked == PrefillSide::Asked::kRepeated) return FailedPrecondition("epoch ", epoch, " is at work already");
  const auto peer = peers_.find(name);
  absl::Status refused =
      peer == peers_.end() ? FailedPrecondition("a prompt before the pool was offered") : peer->second.refused;
  SendQuiesced(*session, epoch, refused);
  return refused;
}

void PrefillHandoff::OnRefused(SequenceId sequence, const absl::Status& why) {
  MutexLock lock(mutex_);
  Execute(side_.Handle(sequence, PrefillEvent::kFailed), {.why = why});
}

void PrefillHandoff::OnReservation(const std::shared_ptr<Session>& session, const proto::Reservation& reservation) {
  MutexLock lock(mutex_);
  const auto& blocks = reservation.blocks();
  Execute(
      side_.Reserve(NameOf(session), reservation.epoch(), {blocks.begin(), blocks.end()}, reservation.first_missing()),
      {.why = InvalidArgument("a reservation of ", reservation.blocks_size(), " blocks, missing from ",
                              reservation.first_missing())});
}

void PrefillHandoff::OnCancel(const std::shared_ptr<Session>& session, uint64_t epoch) {
  MutexLock lock(mutex_);
  // Unknown: it has ended already, and the other side has been told.
  Execute(side_.Cancel(NameOf(session), epoch), {.why = Cancelled("cancelled")});
}

void PrefillHandoff::OnPreemptions(const std::function<bool(SequenceId)>& waits) {
  MutexLock lock(mutex_);
  std::vector<SequenceId> preempted;
  for (const auto& [tag, prompt] : prompts_) {
    const bool started = prompt.started != Clock::time_point();
    if (prompt.shared_pool && started && waits(prompt.sequence)) preempted.push_back(prompt.sequence);
  }
  for (const SequenceId sequence : preempted) EndPreempted(sequence);
}

void PrefillHandoff::EndPreempted(SequenceId sequence) {
  Execute(side_.Handle(sequence, PrefillEvent::kFailed),
          {.why = Unavailable("preempted: it would be computed into other blocks than those that were shared")});
}

void PrefillHandoff::OnPlan(const StepPlan& plan) {
  MutexLock lock(mutex_);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const BatchItem& item = plan.batch.items[i];
    const bool admitted = plan.items[i].complete_begin == 0;
    if (Prompt* prompt = Find(item.sequence)) {
      prompt->ready = nullptr;  // the step before has ended
      if (admitted && prompt->shared_pool && prompt->started != Clock::time_point()) {
        EndPreempted(item.sequence);
        continue;
      }
    }
    Execute(side_.Plan(item.sequence, item.block_table, item.start / options_.layout.block_size,
                       options_.layout.BlocksFor(item.start + item.count), admitted),
            {.cached_tokens = item.start});
  }
}

void PrefillHandoff::OnLayersDone(const Batch& batch, int32_t, int32_t layer_end, void* event) {
  MutexLock lock(mutex_);
  for (const BatchItem& item : batch.items) {
    if (Prompt* prompt = Find(item.sequence)) prompt->ready = event;
    Execute(side_.LayersDone(item.sequence, layer_end), {});
  }
}

void PrefillHandoff::OnFirstToken(const SequenceEvent& event) {
  MutexLock lock(mutex_);
  if (Prompt* prompt = Find(event.sequence)) prompt->ready = nullptr;
  const auto decision = side_.Handle(
      event.sequence, event.finish == FinishReason::kNone ? PrefillEvent::kFirstToken : PrefillEvent::kLastToken);
  if (!decision) return actions_.release(event.sequence);  // cancelled during its last step
  Execute(decision, {.event = &event});
}

void PrefillHandoff::OnStepFailed(SequenceId sequence, const absl::Status& why) {
  MutexLock lock(mutex_);
  Execute(side_.Handle(sequence, PrefillEvent::kFailed), {.why = why});
}

void PrefillHandoff::ExpireHolds(Clock::time_point now) {
  MutexLock lock(mutex_);
  std::vector<SequenceId> expired;
  for (const auto& [tag, prompt] : side_.prompts()) {
    if (prompt.state == PrefillState::kHeld &&
        now - prompts_.at(tag).first_token_at > std::chrono::milliseconds(options_.hold_lease_ms)) {
      expired.push_back(prompt.sequence);
    }
  }
  for (const SequenceId sequence : expired) {
    Execute(side_.Handle(sequence, PrefillEvent::kLeaseExpired),
            {.why = Unavailable("no reservation came within ", options_.hold_lease_ms, " ms")});
  }
}

int32_t PrefillHandoff::size() const {
  MutexLock lock(mutex_);
  return static_cast<int32_t>(prompts_.size());
}

PrefillHandoff::Prompt* PrefillHandoff::Find(SequenceId sequence) {
  const std::optional<uint64_t> tag = side_.TagOf(sequence);
  return tag ? &prompts_.at(*tag) : nullptr;
}

// ---- decisions ----

void PrefillHandoff::Execute(const std::optional<PrefillDecision>& decision, const Cause& cause) {
  if (!decision) return;
  Prompt& prompt = prompts_.at(decision->tag);
  if (!prompt.end_reason && decision->Ends()) prompt.end_reason = cause.why;
  for (const PrefillAction action : decision->actions) {
    if (action != PrefillAction::kPush) Act(action, prompt, *decision, cause);
  }
  if (decision->to == PrefillState::kForgotten) {
    prompts_.erase(decision->tag);
  } else if (!decision->pieces.empty()) {
    Push(decision->tag, prompt, decision->pieces);  // last: a failure is the next event
  }
}

void PrefillHandoff::Act(PrefillAction action, Prompt& prompt, const PrefillDecision& decision, const Cause& cause) {
  proto::Envelope envelope;
  switch (action) {
    case PrefillAction::kNothing:
    case PrefillAction::kPush:
      return;
    case PrefillAction::kSendStarted: {
      prompt.started = Clock::now();
      proto::Started* started = envelope.mutable_started();
      started->set_epoch(prompt.epoch);
      started->set_cached_tokens(cause.cached_tokens);
      started->set_queue_us(MicrosecondsSince(prompt.received));
      if (prompt.shared_pool) {
        const std::vector<BlockId> blocks = actions_.share(prompt.sequence);
        started->mutable_blocks()->Assign(blocks.begin(), blocks.end());
      }
      return SendEnvelope(*prompt.session, envelope);
    }
    case PrefillAction::kSendFirstToken: {
      prompt.first_token_at = Clock::now();
      proto::FirstToken* first = envelope.mutable_first_token();
      first->set_epoch(prompt.epoch);
      ToProto(cause.event->sampled, first->mutable_token());
      for (const SampledToken& token : cause.event->prompt_logprobs) ToProto(token, first->add_prompt_logprobs());
      first->set_finish(static_cast<int32_t>(cause.event->finish));
      first->set_prefill_us(MicrosecondsSince(prompt.started));
      return SendEnvelope(*prompt.session, envelope);
    }
    case PrefillAction::kCancelCopies:
      return prompt.pool->Cancel({decision.tag}, [] {});  // each copy's own callback follows
    case PrefillAction::kStopComputing:
      return actions_.abort(prompt.sequence);
    case PrefillAction::kRelease:
      return actions_.release(prompt.sequence);
    case PrefillAction::kSendComplete: {
      proto::Complete* complete = envelope.mutable_complete();
      complete->set_epoch(prompt.epoch);
      complete->set_bytes(prompt.bytes);
      complete->set_copy_us(prompt.copy_us);
      for (const auto& [block, digest] : prompt.digests) {
        complete->add_blocks(block);
        complete->add_digests(digest);
      }
      return SendEnvelope(*prompt.session, envelope);
    }
    case PrefillAction::kSendQuiesced:
      return SendQuiesced(*prompt.session, prompt.epoch, prompt.end_reason.value_or(absl::OkStatus()));
  }
}

// ---- pushing ----

// A whole block is one range; a group of layers is one for each head.
std::vector<CopyRange> PrefillHandoff::Ranges(const std::vector<PushPiece>& pieces) const {
  const KvLayout& layout = options_.layout;
  std::vector<CopyRange> ranges;
  for (const PushPiece& piece : pieces) {
    const uint8_t* from = options_.memory.base + piece.source * layout.block_bytes();
    const int64_t to = piece.target * layout.block_bytes();
    const int32_t layers = piece.layer_end - piece.layer_begin;
    if (layers == layout.num_layers) {
      ranges.push_back({.from = from, .to_offset = to, .bytes = layout.block_bytes()});
      continue;
    }
    for (int32_t head = 0; head < layout.num_kv_heads; ++head) {
      const int64_t offset = layout.PlaneOffset(head, piece.layer_begin, 0);
      ranges.push_back({.from = from + offset, .to_offset = to + offset, .bytes = layers * layout.layer_bytes()});
    }
  }
  return ranges;
}

void PrefillHandoff::Push(uint64_t tag, Prompt& prompt, const std::vector<PushPiece>& pieces) {
  std::vector<PushPiece> whole;
  if (prompt.verify) {
    std::ranges::copy_if(pieces, std::back_inserter(whole),
                         [this](const PushPiece& piece) { return piece.layer_end == options_.layout.num_layers; });
  }
  const absl::Status posted = prompt.pool->Post(
      Ranges(pieces), {tag},
      [this, tag, whole = std::move(whole)](const TransferResult& result) { OnPushed(tag, result, whole); },
      prompt.ready);
  if (!posted.ok()) Execute(side_.CopyEnded(tag, false), {.why = posted});
}

void PrefillHandoff::OnPushed(uint64_t tag, const TransferResult& result, const std::vector<PushPiece>& whole) {
  // While this copy counts as in flight nobody writes the blocks, unless the prompt is ending or was preempted; then
  // the digest is not used, or comes again with the next push.
  std::vector<std::pair<BlockId, uint64_t>> digests;
  const int64_t bytes = options_.layout.block_bytes();
  for (const PushPiece& piece : whole) {
    if (!result.status.ok()) break;
    digests.emplace_back(piece.target, DigestBytes({options_.memory.base + piece.source * bytes, size_t(bytes)}));
  }
  MutexLock lock(mutex_);
  const auto prompt = prompts_.find(tag);
  if (prompt == prompts_.end()) return;
  for (const auto& [block, digest] : digests) prompt->second.digests[block] = digest;
  prompt->second.bytes += result.bytes;
  prompt->second.copy_us += result.copy_us;
  Execute(side_.CopyEnded(tag, result.status.ok()), {.why = result.status});
}

}  // namespace baton
