// One request of the decode worker's side: events in, decisions carried out.
#include "worker/decode_handoff.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/log.h"
#include "core/block_digest.h"
#include "rpc/convert.h"

namespace baton {
namespace {

// A worker that works ends what is cancelled within a step or a piece of a copy. One that takes longer gets no new
// prompts until it has.
constexpr int64_t kAnswerMs = 1000;

int64_t KnownTokens(const Request& request) {
  return static_cast<int64_t>(request.prompt.size() + request.generated.size());
}

}  // namespace

DecodeHandoff::DecodeHandoff(Connector& connector, Inbox& inbox, Scheduler& scheduler, BlockPool& pool,
                             StreamTable& streams, DecodeHandoffOptions options)
    : connector_(connector),
      inbox_(inbox),
      scheduler_(scheduler),
      pool_(pool),
      streams_(streams),
      options_(std::move(options)),
      side_(options_.epoch_base) {}

// ---- events ----

void DecodeHandoff::Start(SequenceId sequence, Request request, const proto::Member& prefill) {
  Peer& peer = EnsurePeer(prefill);
  incoming_[sequence].request = std::move(request);
  side_.Start(sequence, {prefill.worker()});
  if (!peer.refused.ok()) return Execute(side_.Handle(sequence, DecodeEvent::kPeerGone), {.why = peer.refused});
  if (const auto silent_ms = SilentForMs({prefill.worker()}); silent_ms && *silent_ms > kAnswerMs) {
    const absl::Status why = Unavailable(prefill.process(), " has not answered a cancel for ", *silent_ms, " ms");
    return Execute(side_.Handle(sequence, DecodeEvent::kPeerGone), {.why = why});
  }
  if (peer.session != nullptr) Retry();
}

bool DecodeHandoff::Cancel(SequenceId sequence) {
  if (!side_.requests().contains(sequence)) return false;
  Execute(side_.Handle(sequence, DecodeEvent::kCancelled), {});
  return true;
}

void DecodeHandoff::OnMessage(uint64_t connection, const proto::Envelope& envelope) {
  const std::optional<WorkerId> worker = side_.WorkerOf(connection);
  if (!worker) return;  // of a connection that was replaced
  Cause cause{.message = &envelope};
  const auto decide = [&](uint64_t epoch, DecodeEvent event) {
    const std::optional<DecodeDecision> decision = side_.OnMessage(connection, epoch, event);
    if (!decision) stats_.stale_epochs += 1;
    Execute(decision, cause);
    return decision;
  };
  switch (envelope.body_case()) {
    case proto::Envelope::kPathMeasured:
      return OnPathMeasured(connection, peers_.at(*worker), envelope.path_measured());
    case proto::Envelope::kStarted: {
      // References to a shared pool's blocks are this worker's now, whether the request still wants them or not.
      const auto& blocks = envelope.started().blocks();
      std::vector<BlockId> shared;
      if (peers_.at(*worker).shared_pool) shared.assign(blocks.begin(), blocks.end());
      const auto decision = decide(envelope.started().epoch(), DecodeEvent::kStarted);
      if (decision && decision->to == DecodeState::kStarted) {
        Incoming& incoming = incoming_.at(decision->sequence);
        incoming.shared.swap(shared);
        incoming.shared_cached = envelope.started().cached_tokens();
        NoteStarted(decision->sequence, envelope.started());
        Retry();
      }
      return pool_.Free(shared);
    }
    case proto::Envelope::kFirstToken: {
      const bool last = envelope.first_token().finish() != static_cast<int32_t>(FinishReason::kNone);
      decide(envelope.first_token().epoch(), last ? DecodeEvent::kLastToken : DecodeEvent::kFirstToken);
      return;
    }
    case proto::Envelope::kComplete:
      decide(envelope.complete().epoch(), Verify(connection, envelope.complete()));
      return;
    case proto::Envelope::kQuiesced: {
      const proto::Quiesced& quiesced = envelope.quiesced();
      cause.why = quiesced.has_reason() ? FromProto(quiesced.reason()) : Unavailable("the prefill worker gave it up");
      // This worker would refuse an invalid request too.
      decide(quiesced.epoch(), absl::IsInvalidArgument(cause.why) ? DecodeEvent::kRefused : DecodeEvent::kQuiesced);
      return;
    }
    default:
      LogWarning("unexpected message ", static_cast<int>(envelope.body_case()), " from a prefill worker");
  }
}

// First those that are being computed, who were promised room. Else as the scheduler's waiting queue: lower priority
// values first; within one each user's first before anybody's second, and whose turn is longest ago before others.
std::vector<SequenceId> DecodeHandoff::InTurn() {
  std::map<std::pair<int32_t, std::string_view>, int32_t> turns;
  std::map<std::string, uint64_t> last_turns;  // of those who still wait for anything
  std::vector<std::tuple<bool, int32_t, int32_t, uint64_t, SequenceId>> order;
  for (const auto& [sequence, request] : side_.requests()) {  // by arrival
    const Request& asked = incoming_.at(sequence).request;
    const auto last = last_turns_.find(asked.user);
    const uint64_t last_turn = last == last_turns_.end() ? 0 : last->second;
    last_turns[asked.user] = last_turn;
    const bool computed = request.state == DecodeState::kStarted || request.state == DecodeState::kHeldThere;
    if (!computed && request.state != DecodeState::kWaiting) continue;
    order.emplace_back(!computed, asked.priority, turns[{asked.priority, asked.user}]++, last_turn, sequence);
  }
  last_turns_ = std::move(last_turns);
  std::ranges::sort(order);
  std::vector<SequenceId> sequences;
  for (const auto& entry : order) sequences.push_back(std::get<SequenceId>(entry));
  return sequences;
}

void DecodeHandoff::Retry() {
  bool room = true;  // nobody overtakes one that waits for room
  for (const SequenceId sequence : InTurn()) {
    const auto found = side_.requests().find(sequence);
    if (found == side_.requests().end()) continue;
    const DecodeSide::Request& request = found->second;
    if (request.state == DecodeState::kStarted || request.state == DecodeState::kHeldThere) {
      room = room && TryReserve(sequence);
    } else if (request.state == DecodeState::kWaiting && side_.IsOpen(request.connection)) {
      room = room && HasHeadRoom(incoming_.at(sequence));
      if (room) Execute(side_.Handle(sequence, DecodeEvent::kHeadRoom), {});
    }
  }
}

bool DecodeHandoff::HasHeadRoom(const Incoming& incoming) const {
  int64_t promised = 0;
  bool others = false;
  for (const auto& [sequence, request] : side_.requests()) {
    if (request.state == DecodeState::kRequested || request.state == DecodeState::kStarted ||
        request.state == DecodeState::kHeldThere) {
      const Incoming& other = incoming_.at(sequence);
      // Blocks that P shares are out of the pool already.
      if (other.shared.empty()) promised += pool_.BlocksFor(KnownTokens(other.request) + 1);
    }
    others |= request.state != DecodeState::kWaiting;
  }
  const int64_t needed = pool_.BlocksFor(KnownTokens(incoming.request) + 1);
  // With nothing else going on there will never be more room than now.
  return scheduler_.ExpectedFreeBlocks() - promised >= needed || (!others && !scheduler_.HasWork());
}

absl::StatusOr<RemoteReservation> DecodeHandoff::Reserve(SequenceId sequence) {
  Incoming& incoming = incoming_.at(sequence);
  if (!SharesPool(sequence)) return scheduler_.ReserveRemote(sequence, incoming.request);
  auto reservation = scheduler_.ReserveShared(sequence, incoming.request, incoming.shared, incoming.shared_cached);
  if (reservation.ok()) incoming.shared.clear();  // the sequence's now
  return reservation;
}

bool DecodeHandoff::TryReserve(SequenceId sequence) {
  Incoming& incoming = incoming_.at(sequence);
  absl::StatusOr<RemoteReservation> reservation = Reserve(sequence);
  if (absl::IsResourceExhausted(reservation.status())) return false;
  if (reservation.ok()) incoming.reservation = *std::move(reservation);
  Execute(side_.Handle(sequence, reservation.ok() ? DecodeEvent::kReserved : DecodeEvent::kNeverFits),
          {.why = reservation.status()});
  return true;
}

// ---- decisions ----

void DecodeHandoff::Execute(const std::optional<DecodeDecision>& decision, const Cause& cause) {
  if (!decision) return;
  // A recompute may keep the scheduler's sequence, and settles the blocks itself.
  if (!decision->Does(DecodeAction::kRecompute)) SettleBlocks(*decision);
  for (const DecodeAction action : decision->actions) Act(action, *decision, cause);
  if (IsEnding(decision->to) && !IsEnding(decision->from)) {
    incoming_.at(decision->sequence).ending_since = Clock::now();
  }
  if (decision->to != DecodeState::kForgotten) return;
  const auto incoming = incoming_.find(decision->sequence);
  if (incoming == incoming_.end()) return;
  pool_.Free(incoming->second.shared);
  incoming_.erase(incoming);
}

void DecodeHandoff::SettleBlocks(const DecodeDecision& decision) {
  if (decision.blocks == BlocksFate::kKeep) return;
  const bool fence = decision.blocks == BlocksFate::kFence;
  const auto fenced =
      scheduler_.AbandonRemote(decision.sequence, fence ? ReservedBlocks::kFence : ReservedBlocks::kFree);
  if (fenced.ok()) side_.Fence(decision, *fenced);
}

void DecodeHandoff::Act(DecodeAction action, const DecodeDecision& decision, const Cause& cause) {
  switch (action) {
    case DecodeAction::kNothing:
      return;
    case DecodeAction::kSendPrefill:
      return SendPrefill(decision);
    case DecodeAction::kSendReservation:
      return SendReservation(decision);
    case DecodeAction::kSendCancel: {
      proto::Envelope envelope;
      envelope.mutable_cancel_prefill()->set_epoch(decision.epoch);
      return Send(decision, envelope);
    }
    case DecodeAction::kDeliverToken:
      return DeliverToken(decision, cause.message->first_token());
    case DecodeAction::kDeliverError:
      return streams_.Report(decision.sequence, {.finish = FinishReason::kError, .status = cause.why});
    case DecodeAction::kDecode:
    case DecodeAction::kResume:
      return Decode(decision, cause.message->complete());
    case DecodeAction::kRecompute:
      return Recompute(decision, cause.why);
  }
}

void DecodeHandoff::Send(const DecodeDecision& decision, const proto::Envelope& envelope) {
  SendEnvelope(*peers_.at(decision.prefill).session, envelope);
}

void DecodeHandoff::SendPrefill(const DecodeDecision& decision) {
  last_turns_[incoming_.at(decision.sequence).request.user] = ++next_turn_;
  proto::Envelope envelope;
  proto::Prefill* prefill = envelope.mutable_prefill();
  prefill->set_epoch(decision.epoch);
  ToProto(incoming_.at(decision.sequence).request, prefill->mutable_request());
  if (const ActiveStream* stream = streams_.Find(decision.sequence);
      stream != nullptr && stream->deadline != Clock::time_point::max()) {
    const int64_t left = MicrosecondsBetween(Clock::now(), stream->deadline) / 1000;
    prefill->mutable_request()->set_timeout_ms(std::max<int64_t>(1, left));
  }
  Send(decision, envelope);
}

void DecodeHandoff::SendReservation(const DecodeDecision& decision) {
  const Incoming& incoming = incoming_.at(decision.sequence);
  const RemoteReservation& reservation = incoming.reservation;
  if (ActiveStream* stream = streams_.Find(decision.sequence)) {
    stream->waterfall.cached_tokens = std::max(stream->waterfall.cached_tokens, reservation.cached_tokens);
  }
  proto::Envelope envelope;
  proto::Reservation* message = envelope.mutable_reservation();
  message->set_epoch(decision.epoch);
  const int32_t blocks = pool_.BlocksFor(KnownTokens(incoming.request));
  message->mutable_blocks()->Assign(reservation.blocks.begin(), reservation.blocks.begin() + blocks);
  const bool shared = peers_.at(decision.prefill).shared_pool;
  message->set_first_missing(shared ? blocks : reservation.cached_tokens / pool_.block_size());
  Send(decision, envelope);
}

void DecodeHandoff::NoteStarted(SequenceId sequence, const proto::Started& started) {
  ActiveStream* stream = streams_.Find(sequence);
  if (stream == nullptr) return;
  stream->first_scheduled = Clock::now();
  stream->waterfall.queue_us = MicrosecondsBetween(stream->received, *stream->first_scheduled);
  stream->waterfall.cached_tokens = started.cached_tokens();
}

void DecodeHandoff::DeliverToken(const DecodeDecision& decision, const proto::FirstToken& first) {
  Incoming& incoming = incoming_.at(decision.sequence);
  incoming.first_token = FromProto(first.token());
  incoming.prefill_ended = Clock::now();
  const absl::StatusOr<FinishReason> finish = FinishReasonFromProto(first.finish());
  TokenEvent event{.position = static_cast<int32_t>(incoming.request.generated.size()),
                   .tokens = {*incoming.first_token},
                   .finish = finish.value_or(FinishReason::kError)};
  for (const proto::Token& token : first.prompt_logprobs()) event.prompt_logprobs.push_back(FromProto(token));
  if (ActiveStream* stream = streams_.Find(decision.sequence)) {
    stream->first_token = incoming.prefill_ended;
    stream->waterfall.prefill_us = first.prefill_us();
    stream->waterfall.prefill_worker = decision.prefill.value;
  }
  streams_.Report(decision.sequence, std::move(event));
  streams_.Flush();  // the client's first token does not wait for this worker's step
}

// Compares the blocks that were handed over with what P says of them; one that it says nothing of is bad too. By the
// ids that D reserved, not by those that P believes in.
DecodeEvent DecodeHandoff::Verify(uint64_t connection, const proto::Complete& complete) {
  const auto found = side_.Find(connection, complete.epoch());
  if (options_.verify == nullptr || !found || found->second != DecodeState::kArriving || SharesPool(found->first)) {
    return DecodeEvent::kComplete;
  }
  std::unordered_map<BlockId, uint64_t> digests;
  for (int32_t i = 0; i < std::min(complete.blocks_size(), complete.digests_size()); ++i) {
    digests[complete.blocks(i)] = complete.digests(i);
  }
  Incoming& incoming = incoming_.at(found->first);
  const int64_t bytes = options_.layout.block_bytes();
  const int32_t end = pool_.BlocksFor(KnownTokens(incoming.request));
  int32_t corrupt = 0;
  for (int32_t i = incoming.reservation.cached_tokens / pool_.block_size(); i < end; ++i) {
    const BlockId block = incoming.reservation.blocks[i];
    const auto sent = digests.find(block);
    stats_.blocks_verified += 1;
    if (sent != digests.end() && sent->second == DigestBytes({options_.verify + block * bytes, size_t(bytes)}))
      continue;
    if (corrupt++ == 0) incoming.good_blocks = i;
  }
  if (corrupt == 0) return DecodeEvent::kComplete;
  stats_.blocks_corrupt += corrupt;
  LogError("request ", incoming.request.id, ": ", corrupt, " of ", end, " KV blocks from ",
           peers_.at(*side_.WorkerOf(connection)).member.process(), " are not what it sent; computing from block ",
           incoming.good_blocks, " on");
  return DecodeEvent::kCorrupt;
}

void DecodeHandoff::Decode(const DecodeDecision& decision, const proto::Complete& complete) {
  const Incoming& incoming = incoming_.at(decision.sequence);
  const int64_t handoff_us = MicrosecondsBetween(incoming.prefill_ended, Clock::now());
  if (ActiveStream* stream = streams_.Find(decision.sequence)) {
    stream->waterfall.handoff_us = handoff_us;
    stream->waterfall.handoff_bytes = complete.bytes();
    const double seconds = std::max(1e-6, static_cast<double>(complete.copy_us()) * 1e-6);
    const int64_t tenths = static_cast<int64_t>(static_cast<double>(complete.bytes()) / seconds / 1e8 + 0.5);
    const Peer& peer = peers_.at(decision.prefill);
    stream->waterfall.handoff_path = peer.path.transport();
    if (!peer.shared_pool) stream->waterfall.handoff_path += Cat("; ", tenths / 10, ".", tenths % 10, " GB/s now");
  }
  stats_.handoffs += 1;
  stats_.bytes += complete.bytes();
  stats_.seconds += static_cast<double>(handoff_us) * 1e-6;
  const auto position = static_cast<int32_t>(incoming.request.generated.size());
  const std::span first(&incoming.first_token->token, 1);
  const auto finish = decision.Does(DecodeAction::kResume)
                          ? scheduler_.ResumeRemote(decision.sequence, first, incoming.good_blocks)
                          : scheduler_.AddPrefilled(decision.sequence, first);
  if (!finish.ok()) {
    streams_.Report(decision.sequence, {.finish = FinishReason::kError, .status = finish.status()});
  } else if (*finish != FinishReason::kNone) {
    streams_.Report(decision.sequence, {.position = position + 1, .finish = *finish});
  }
}

// The fallback for every failure: prefill here, from the tokens that the client already has.
void DecodeHandoff::Recompute(const DecodeDecision& decision, const absl::Status& why) {
  Incoming& incoming = incoming_.at(decision.sequence);
  if (decision.from != DecodeState::kWaiting) stats_.recomputed += 1;
  LogInfo("request ", incoming.request.id, ": prefilling here instead: ", Message(why));
  if (decision.blocks != BlocksFate::kKeep && !incoming.first_token) {  // it keeps its place in the queue
    const bool fence = decision.blocks == BlocksFate::kFence;
    const auto fenced =
        scheduler_.RecomputeRemote(decision.sequence, fence ? ReservedBlocks::kFence : ReservedBlocks::kFree);
    if (fenced.ok()) side_.Fence(decision, *fenced);
    return;
  }
  SettleBlocks(decision);
  Request request = std::move(incoming.request);
  if (incoming.first_token) request.generated.push_back(incoming.first_token->token);
  request.sampling.prompt_logprobs = request.sampling.prompt_logprobs && !incoming.first_token;
  if (const absl::Status added = scheduler_.Add(decision.sequence, std::move(request), SequenceKind::kLocal);
      !added.ok()) {
    streams_.Report(decision.sequence, {.finish = FinishReason::kError, .status = added});
  }
}

int32_t DecodeHandoff::reservations() const {
  return static_cast<int32_t>(std::ranges::count_if(side_.requests(), [](const auto& entry) {
    const DecodeState state = entry.second.state;
    return state == DecodeState::kReserved || state == DecodeState::kArriving || state == DecodeState::kEndingReserved;
  }));
}

}  // namespace baton
