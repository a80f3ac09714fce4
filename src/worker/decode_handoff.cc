#include "worker/decode_handoff.h"

#include <fcntl.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "rpc/convert.h"

namespace baton {
namespace {

constexpr int64_t kConnectTimeoutMs = 2000;
constexpr int64_t kProbeBytes = 16 << 20;

}  // namespace

DecodeHandoff::DecodeHandoff(Connector& connector, Inbox& inbox, Scheduler& scheduler, BlockPool& pool,
                             StreamTable& streams, DecodeHandoffOptions options)
    : connector_(connector),
      inbox_(inbox),
      scheduler_(scheduler),
      pool_(pool),
      streams_(streams),
      options_(std::move(options)),
      next_epoch_(options_.epoch_base) {}

void DecodeHandoff::Start(SequenceId sequence, Request request, const proto::Member& prefill) {
  Incoming& incoming = incoming_[sequence];
  incoming.sequence = sequence;
  incoming.request = std::move(request);
  incoming.prefill = {prefill.worker()};
  Peer& peer = EnsurePeer(prefill);
  incoming.incarnation = peer.member.incarnation();
  if (!peer.refused.ok()) return Recompute(incoming, false, peer.refused);
  if (peer.session == nullptr) {
    peer.waiting.push_back(sequence);
  } else {
    Retry();
  }
}

// ---- the other worker ----

DecodeHandoff::Peer& DecodeHandoff::EnsurePeer(const proto::Member& member) {
  const WorkerId id{member.worker()};
  Peer& peer = peers_[id];
  // Who asks may not know yet that this worker has been started anew.
  if (peer.member.incarnation() < member.incarnation()) {
    if (peer.session != nullptr) peer.session->Close();
    peer = Peer{.member = member};
  }
  if (peer.session != nullptr || peer.connecting) return peer;
  peer.connecting = true;
  const uint64_t incarnation = peer.member.incarnation();
  SessionEvents events{.on_frame =
                           [this, id, incarnation](std::string_view frame, UniqueFd) {
                             auto envelope = std::make_shared<proto::Envelope>();
                             if (const absl::Status status = ParseEnvelope(frame, *envelope); !status.ok()) {
                               return LogError("prefill worker ", id.value, ": ", Message(status));
                             }
                             inbox_.Post([this, id, incarnation, envelope] { OnMessage(id, incarnation, *envelope); });
                           },
                       .on_closed =
                           [this, id, incarnation](absl::Status why) {
                             inbox_.Post([this, id, incarnation, why] { OnSessionClosed(id, incarnation, why); });
                           },
                       .watched = true};
  connector_.Connect(peer.member.address(), std::move(events), kConnectTimeoutMs,
                     [this, id, incarnation](auto session) {
                       inbox_.Post([this, id, incarnation, session = std::move(session)]() mutable {
                         OnConnected(id, incarnation, std::move(session));
                       });
                     });
  return peer;
}

void DecodeHandoff::OnConnected(WorkerId id, uint64_t incarnation, absl::StatusOr<std::shared_ptr<Session>> session) {
  Peer& peer = peers_[id];
  if (peer.member.incarnation() != incarnation) return;
  peer.connecting = false;
  const std::vector<SequenceId> waiting = std::exchange(peer.waiting, {});
  if (!session.ok()) {
    for (const SequenceId sequence : waiting) {
      const auto found = incoming_.find(sequence);
      if (found != incoming_.end()) Recompute(found->second, false, session.status());
    }
    return;
  }
  peer.session = *std::move(session);
  OfferPool(peer);
  Retry();
}

void DecodeHandoff::OfferPool(Peer& peer) {
  // A few free blocks to measure the path with; none when memory is short just now.
  const int32_t wanted = static_cast<int32_t>(std::clamp<int64_t>(kProbeBytes / options_.layout.block_bytes(), 1, 64));
  if (auto blocks = pool_.Allocate(std::min(wanted, pool_.Available() / 2)); blocks.ok())
    peer.probe_blocks = *std::move(blocks);
  proto::Envelope envelope;
  proto::PoolOffer* offer = envelope.mutable_pool_offer();
  *offer->mutable_owner() = options_.self;
  offer->set_pool(options_.pool_descriptor);
  offer->set_block_bytes(options_.layout.block_bytes());
  offer->mutable_probe_blocks()->Assign(peer.probe_blocks.begin(), peer.probe_blocks.end());
  UniqueFd fd(options_.pool_fd < 0 ? -1 : fcntl(options_.pool_fd, F_DUPFD_CLOEXEC, 0));
  SendEnvelope(*peer.session, envelope, std::move(fd));
}

void DecodeHandoff::OnPathMeasured(Peer& peer, const proto::PathMeasured& measured) {
  pool_.Free(std::exchange(peer.probe_blocks, {}));
  peer.path = measured.path();
  peer.path.set_prefill_worker(peer.member.worker());
  if (measured.has_refused()) {
    peer.refused = FromProto(measured.refused());
    peer.path.set_gigabytes_per_second(-1);
    peer.path.set_warning(std::string(Message(peer.refused)));
    LogWarning("no hand-off from ", peer.member.process(), ": ", Message(peer.refused),
               "; prompts are prefilled here instead");
    return;
  }
  LogInfo("path ", peer.member.process(), " -> ", options_.self.process(), ": ", peer.path.transport());
  if (!peer.path.warning().empty())
    LogWarning("the path from ", peer.member.process(), " is slow: ", peer.path.warning());
}

void DecodeHandoff::OnSessionClosed(WorkerId prefill, uint64_t incarnation, const absl::Status& why) {
  const auto found = peers_.find(prefill);
  if (found == peers_.end() || found->second.member.incarnation() != incarnation) return;
  Peer& peer = found->second;
  peer.session.reset();
  const bool may_write = !IsReaped(prefill, incarnation);
  if (may_write) options_.report_lost(prefill, incarnation, std::string(Message(why)));
  if (std::vector<BlockId> probe = std::exchange(peer.probe_blocks, {}); !probe.empty()) {
    if (may_write) {
      for (const BlockId block : probe) pool_.Fence(block);
      Fence(prefill, incarnation, std::move(probe));
    } else {
      pool_.Free(probe);
    }
  }
  std::vector<SequenceId> lost;
  for (const auto& [sequence, incoming] : incoming_) {
    if (incoming.prefill == prefill && incoming.incarnation == incarnation) lost.push_back(sequence);
  }
  for (const SequenceId sequence : lost) {
    Recompute(incoming_.at(sequence), may_write, Unavailable("lost ", peer.member.process(), ": ", Message(why)));
  }
}

void DecodeHandoff::OnMembers(const proto::Members& members) {
  for (const proto::Member& member : members.members()) {
    members_[{member.worker()}] = member;
    // Connected and measured before the first request, which should not pay for it.
    const bool sends_to_us = member.role() == proto::PREFILL && member.worker() != options_.self.worker();
    if (options_.connect_early && sends_to_us && member.state() == proto::Member::READY) EnsurePeer(member);
  }
  for (auto entry = fenced_.begin(); entry != fenced_.end();) {
    const auto& [worker, incarnation] = entry->first;
    if (!IsReaped(worker, incarnation)) {
      ++entry;
      continue;
    }
    LogInfo(entry->second.size(), " fenced blocks come home: worker ", worker.value, ", incarnation ", incarnation,
            " has been reaped");
    for (const BlockId block : entry->second) pool_.Unfence(block);
    entry = fenced_.erase(entry);
  }
  // Reaped before its session's end was noticed: the session's own news follows and finds that nobody can write.
}

bool DecodeHandoff::IsReaped(WorkerId prefill, uint64_t incarnation) const {
  const auto member = members_.find(prefill);
  if (member == members_.end()) return false;
  return member->second.incarnation() > incarnation ||
         (member->second.incarnation() == incarnation && member->second.state() == proto::Member::DEAD);
}

void DecodeHandoff::Fence(WorkerId prefill, uint64_t incarnation, std::vector<BlockId> blocks) {
  if (blocks.empty()) return;
  std::vector<BlockId>& all = fenced_[{prefill, incarnation}];
  all.insert(all.end(), blocks.begin(), blocks.end());
}

// ---- one sequence ----

bool DecodeHandoff::HasHeadRoom(const Incoming& incoming) const {
  int64_t promised = 0;
  bool others = false;
  for (const auto& [sequence, other] : incoming_) {
    if (other.state == State::kRequested || other.state == State::kStarted) {
      promised += pool_.BlocksFor(other.request.prompt.size() + other.request.generated.size() + 1);
    }
    others |= other.state != State::kWaitingForHeadRoom;
  }
  const int64_t needed = pool_.BlocksFor(incoming.request.prompt.size() + incoming.request.generated.size() + 1);
  // With nothing else going on there will never be more room than now.
  return scheduler_.ExpectedFreeBlocks() - promised >= needed || (!others && !scheduler_.HasWork());
}

void DecodeHandoff::SendPrefill(Incoming& incoming) {
  incoming.state = State::kRequested;
  last_turns_[incoming.request.user] = ++next_turn_;
  incoming.epoch = ++next_epoch_;
  by_epoch_[incoming.epoch] = incoming.sequence;
  proto::Envelope envelope;
  proto::Prefill* prefill = envelope.mutable_prefill();
  prefill->set_epoch(incoming.epoch);
  ToProto(incoming.request, prefill->mutable_request());
  if (const ActiveStream* stream = streams_.Find(incoming.sequence);
      stream != nullptr && stream->deadline != Clock::time_point::max()) {
    const int64_t left = MicrosecondsBetween(Clock::now(), stream->deadline) / 1000;
    prefill->mutable_request()->set_timeout_ms(std::max<int64_t>(1, left));
  }
  SendEnvelope(*peers_.at(incoming.prefill).session, envelope);
}

// First those that are being computed, who were promised room. Else as the scheduler's waiting queue: lower priority
// values first; within one each user's first before anybody's second, and whose turn is longest ago before others.
std::vector<SequenceId> DecodeHandoff::InTurn() {
  std::map<std::pair<int32_t, std::string_view>, int32_t> turns;
  std::map<std::string, uint64_t> last_turns;  // of those who still wait for anything
  std::vector<std::tuple<bool, int32_t, int32_t, uint64_t, SequenceId>> order;
  for (const auto& [sequence, incoming] : incoming_) {  // by arrival
    const std::string& user = incoming.request.user;
    const auto last = last_turns_.find(user);
    const uint64_t last_turn = last == last_turns_.end() ? 0 : last->second;
    last_turns[user] = last_turn;
    if (incoming.state != State::kWaitingForHeadRoom && incoming.state != State::kStarted) continue;
    const int32_t priority = incoming.request.priority;
    order.emplace_back(incoming.state != State::kStarted, priority, turns[{priority, user}]++, last_turn, sequence);
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
    const auto found = incoming_.find(sequence);
    if (found == incoming_.end()) continue;
    Incoming& incoming = found->second;
    if (incoming.state == State::kStarted && !incoming.reserved && room) room = TryReserve(incoming);
    if (incoming.state != State::kWaitingForHeadRoom || peers_[incoming.prefill].session == nullptr) continue;
    room = room && HasHeadRoom(incoming);
    if (room) SendPrefill(incoming);
  }
}

bool DecodeHandoff::TryReserve(Incoming& incoming) {
  absl::StatusOr<RemoteReservation> reservation = scheduler_.ReserveRemote(incoming.sequence, incoming.request);
  if (absl::IsResourceExhausted(reservation.status())) return false;
  if (!reservation.ok()) {
    SendCancel(incoming);
    streams_.Report(incoming.sequence, {.finish = FinishReason::kError, .status = reservation.status()});
    incoming.state = State::kEnding;
    return true;
  }
  incoming.reserved = true;
  incoming.state = State::kReserved;
  if (ActiveStream* stream = streams_.Find(incoming.sequence)) {
    stream->waterfall.cached_tokens = std::max(stream->waterfall.cached_tokens, reservation->cached_tokens);
  }
  proto::Envelope envelope;
  proto::Reservation* message = envelope.mutable_reservation();
  message->set_epoch(incoming.epoch);
  const int32_t blocks = pool_.BlocksFor(incoming.request.prompt.size() + incoming.request.generated.size());
  message->mutable_blocks()->Assign(reservation->blocks.begin(), reservation->blocks.begin() + blocks);
  message->set_first_missing(reservation->cached_tokens / pool_.block_size());
  SendEnvelope(*peers_.at(incoming.prefill).session, envelope);
  return true;
}

bool DecodeHandoff::Cancel(SequenceId sequence) {
  const auto found = incoming_.find(sequence);
  if (found == incoming_.end()) return false;
  Incoming& incoming = found->second;
  if (incoming.state == State::kWaitingForHeadRoom) {
    Erase(sequence);
  } else if (incoming.state != State::kEnding) {
    SendCancel(incoming);
    incoming.state = State::kEnding;
  }
  return true;
}

void DecodeHandoff::SendCancel(const Incoming& incoming) {
  const std::shared_ptr<Session>& session = peers_.at(incoming.prefill).session;
  if (session == nullptr) return;
  proto::Envelope envelope;
  envelope.mutable_cancel_prefill()->set_epoch(incoming.epoch);
  SendEnvelope(*session, envelope);
}

DecodeHandoff::Incoming* DecodeHandoff::FindEpoch(uint64_t epoch) {
  const auto found = by_epoch_.find(epoch);
  if (found == by_epoch_.end()) {
    stats_.stale_epochs += 1;
    return nullptr;
  }
  return &incoming_.at(found->second);
}

void DecodeHandoff::OnMessage(WorkerId prefill, uint64_t incarnation, const proto::Envelope& envelope) {
  const auto peer = peers_.find(prefill);
  if (peer == peers_.end() || peer->second.member.incarnation() != incarnation) return;
  switch (envelope.body_case()) {
    case proto::Envelope::kPathMeasured:
      return OnPathMeasured(peer->second, envelope.path_measured());
    case proto::Envelope::kStarted:
      if (Incoming* incoming = FindEpoch(envelope.started().epoch())) OnStarted(*incoming, envelope.started());
      return;
    case proto::Envelope::kFirstToken:
      if (Incoming* incoming = FindEpoch(envelope.first_token().epoch()))
        OnFirstToken(*incoming, envelope.first_token());
      return;
    case proto::Envelope::kComplete:
      if (Incoming* incoming = FindEpoch(envelope.complete().epoch())) OnComplete(*incoming, envelope.complete());
      return;
    case proto::Envelope::kQuiesced:
      if (Incoming* incoming = FindEpoch(envelope.quiesced().epoch())) OnQuiesced(*incoming, envelope.quiesced());
      return;
    default:
      LogWarning("unexpected message ", static_cast<int>(envelope.body_case()), " from a prefill worker");
  }
}

void DecodeHandoff::OnStarted(Incoming& incoming, const proto::Started& started) {
  if (incoming.state != State::kRequested) return;
  incoming.state = State::kStarted;
  if (ActiveStream* stream = streams_.Find(incoming.sequence)) {
    stream->first_scheduled = Clock::now();
    stream->waterfall.queue_us = MicrosecondsBetween(stream->received, *stream->first_scheduled);
    stream->waterfall.cached_tokens = started.cached_tokens();
  }
  Retry();
}

void DecodeHandoff::OnFirstToken(Incoming& incoming, const proto::FirstToken& first) {
  if (incoming.state == State::kEnding || incoming.first_token) return;
  incoming.first_token = FromProto(first.token());
  incoming.prefill_ended = Clock::now();
  const absl::StatusOr<FinishReason> finish = FinishReasonFromProto(first.finish());
  TokenEvent event{.position = static_cast<int32_t>(incoming.request.generated.size()),
                   .tokens = {*incoming.first_token},
                   .finish = finish.value_or(FinishReason::kError)};
  for (const proto::Token& token : first.prompt_logprobs()) event.prompt_logprobs.push_back(FromProto(token));
  if (ActiveStream* stream = streams_.Find(incoming.sequence)) {
    stream->first_token = incoming.prefill_ended;
    stream->waterfall.prefill_us = first.prefill_us();
    stream->waterfall.prefill_worker = incoming.prefill.value;
  }
  // An answer of one token: nothing more is needed. P pushes no more and says Quiesced.
  if (event.finish != FinishReason::kNone) incoming.state = State::kEnding;
  streams_.Report(incoming.sequence, std::move(event));
  streams_.Flush();  // the client's first token does not wait for this worker's step
}

void DecodeHandoff::OnComplete(Incoming& incoming, const proto::Complete& complete) {
  if (incoming.state == State::kEnding) {
    // Cancelled when the last block was already there: the copies have ended, so the blocks are free to go.
    if (incoming.reserved) (void)scheduler_.AbandonRemote(incoming.sequence, ReservedBlocks::kFree);
    return Erase(incoming.sequence);
  }
  if (incoming.state != State::kReserved || !incoming.first_token) {
    stats_.stale_epochs += 1;
    return;
  }
  const Clock::time_point now = Clock::now();
  if (ActiveStream* stream = streams_.Find(incoming.sequence)) {
    stream->waterfall.handoff_us = MicrosecondsBetween(incoming.prefill_ended, now);
    stream->waterfall.handoff_bytes = complete.bytes();
    const double seconds = std::max(1e-6, static_cast<double>(complete.copy_us()) * 1e-6);
    const int64_t tenths = static_cast<int64_t>(static_cast<double>(complete.bytes()) / seconds / 1e8 + 0.5);
    stream->waterfall.handoff_path =
        Cat(peers_.at(incoming.prefill).path.transport(), "; ", tenths / 10, ".", tenths % 10, " GB/s now");
  }
  stats_.handoffs += 1;
  stats_.bytes += complete.bytes();
  stats_.seconds += static_cast<double>(MicrosecondsBetween(incoming.prefill_ended, now)) * 1e-6;
  const SequenceId sequence = incoming.sequence;
  const SampledToken first = *incoming.first_token;
  const auto position = static_cast<int32_t>(incoming.request.generated.size());
  Erase(sequence);
  const absl::StatusOr<FinishReason> finish = scheduler_.AddPrefilled(sequence, std::span(&first.token, 1));
  if (!finish.ok()) {
    streams_.Report(sequence, {.finish = FinishReason::kError, .status = finish.status()});
  } else if (*finish != FinishReason::kNone) {
    streams_.Report(sequence, {.position = position + 1, .finish = *finish});
  }
}

void DecodeHandoff::OnQuiesced(Incoming& incoming, const proto::Quiesced& quiesced) {
  if (incoming.state == State::kEnding) {
    if (incoming.reserved) (void)scheduler_.AbandonRemote(incoming.sequence, ReservedBlocks::kFree);
    return Erase(incoming.sequence);
  }
  const absl::Status reason =
      quiesced.has_reason() ? FromProto(quiesced.reason()) : Unavailable("the prefill worker gave it up");
  Recompute(incoming, false, reason);
}

// The fallback for every failure: prefill here, from the tokens that the client already has.
void DecodeHandoff::Recompute(Incoming& incoming, bool peer_may_write, const absl::Status& why) {
  const SequenceId sequence = incoming.sequence;
  const bool requested = incoming.state != State::kWaitingForHeadRoom;
  const ReservedBlocks disposition = peer_may_write ? ReservedBlocks::kFence : ReservedBlocks::kFree;
  const auto keep_fenced = [&](absl::StatusOr<std::vector<BlockId>> fenced) {
    if (fenced.ok()) Fence(incoming.prefill, incoming.incarnation, *std::move(fenced));
  };
  if (incoming.state == State::kEnding || absl::IsInvalidArgument(why)) {
    if (incoming.reserved) keep_fenced(scheduler_.AbandonRemote(sequence, disposition));
    if (incoming.state != State::kEnding) streams_.Report(sequence, {.finish = FinishReason::kError, .status = why});
    return Erase(sequence);
  }
  if (requested) stats_.recomputed += 1;
  LogInfo("request ", incoming.request.id, ": prefilling here instead: ", Message(why));
  if (incoming.reserved && !incoming.first_token) {
    keep_fenced(scheduler_.RecomputeRemote(sequence, disposition));
    return Erase(sequence);
  }
  if (incoming.reserved) keep_fenced(scheduler_.AbandonRemote(sequence, disposition));
  Request request = std::move(incoming.request);
  if (incoming.first_token) request.generated.push_back(incoming.first_token->token);
  request.sampling.prompt_logprobs = request.sampling.prompt_logprobs && !incoming.first_token;
  Erase(sequence);
  if (const absl::Status added = scheduler_.Add(sequence, std::move(request), SequenceKind::kLocal); !added.ok()) {
    streams_.Report(sequence, {.finish = FinishReason::kError, .status = added});
  }
}

void DecodeHandoff::Erase(SequenceId sequence) {
  const auto found = incoming_.find(sequence);
  if (found == incoming_.end()) return;
  by_epoch_.erase(found->second.epoch);
  incoming_.erase(found);
}

int32_t DecodeHandoff::reservations() const {
  return static_cast<int32_t>(
      std::count_if(incoming_.begin(), incoming_.end(), [](const auto& entry) { return entry.second.reserved; }));
}

int32_t DecodeHandoff::probe_blocks() const {
  int32_t blocks = 0;
  for (const auto& [id, peer] : peers_) blocks += static_cast<int32_t>(peer.probe_blocks.size());
  return blocks;
}

std::vector<proto::Path> DecodeHandoff::paths() const {
  std::vector<proto::Path> paths;
  for (const auto& [id, peer] : peers_) {
    if (!peer.path.transport().empty() || !peer.refused.ok()) paths.push_back(peer.path);
  }
  return paths;
}

}  // namespace baton
