// Other workers: connections to prefill workers, the offer of the pool, and what their deaths mean.
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "rpc/convert.h"
#include "worker/decode_handoff.h"

namespace baton {
namespace {

constexpr int64_t kConnectTimeoutMs = 2000;
constexpr int64_t kProbeBytes = 16 << 20;

}  // namespace

DecodeHandoff::Peer& DecodeHandoff::EnsurePeer(const proto::Member& member) {
  const WorkerId worker{member.worker()};
  const PeerDecision decision = side_.Need(worker, member.incarnation());
  ExecutePeer(worker, decision, Unavailable("lost ", member.process(), ": it has been started anew"));
  Peer& peer = peers_[worker];
  // Not `member`'s: who asks may not know yet that this worker has been started anew.
  const uint64_t incarnation = side_.peers().at(worker).incarnation;
  if (peer.incarnation != incarnation) peer = Peer{.member = member, .incarnation = incarnation};
  if (decision.connect != 0) Connect(worker, decision.connect);
  return peer;
}

void DecodeHandoff::Connect(WorkerId worker, uint64_t connection) {
  SessionEvents events{.on_frame =
                           [this, worker, connection](std::string_view frame, UniqueFd) {
                             auto envelope = std::make_shared<proto::Envelope>();
                             if (const absl::Status status = ParseEnvelope(frame, *envelope); !status.ok()) {
                               return LogError("prefill worker ", worker.value, ": ", Message(status));
                             }
                             inbox_.Post([this, connection, envelope] { OnMessage(connection, *envelope); });
                           },
                       .on_closed =
                           [this, connection](absl::Status why) {
                             inbox_.Post([this, connection, why] { OnSessionClosed(connection, why); });
                           },
                       .watched = true};
  connector_.Connect(peers_.at(worker).member.address(), std::move(events), kConnectTimeoutMs,
                     [this, connection](auto session) {
                       inbox_.Post([this, connection, session = std::move(session)]() mutable {
                         OnConnected(connection, std::move(session));
                       });
                     });
}

void DecodeHandoff::OnConnected(uint64_t connection, absl::StatusOr<std::shared_ptr<Session>> session) {
  const std::optional<WorkerId> worker = side_.WorkerOf(connection);
  const PeerDecision decision = side_.OnConnected(connection, session.ok());
  if (decision.close != 0) {  // nobody waits for it any more
    if (session.ok()) (*session)->Close();
    return;
  }
  if (!session.ok()) return ExecutePeer(*worker, decision, session.status());
  Peer& peer = peers_.at(*worker);
  peer.session = *std::move(session);
  peer.shared_pool = peer.session->within_process();
  OfferPool(connection, peer);
  Retry();
}

void DecodeHandoff::OfferPool(uint64_t connection, Peer& peer) {
  // A few free blocks to measure the path with; none when memory is short just now.
  const int32_t wanted = static_cast<int32_t>(std::clamp<int64_t>(kProbeBytes / options_.layout.block_bytes(), 1, 64));
  proto::Envelope envelope;
  proto::PoolOffer* offer = envelope.mutable_pool_offer();
  *offer->mutable_owner() = options_.self;
  offer->set_to_incarnation(peer.incarnation);
  offer->set_pool(options_.pool_descriptor);
  offer->set_block_bytes(options_.layout.block_bytes());
  offer->set_verify(options_.verify != nullptr);
  if (peer.shared_pool) {
    // There is no path to measure.
  } else if (auto blocks = pool_.Allocate(std::min(wanted, pool_.Available() / 2)); blocks.ok()) {
    offer->mutable_probe_blocks()->Assign(blocks->begin(), blocks->end());
    side_.Lend(connection, *std::move(blocks));
  }
  UniqueFd fd(options_.pool_fd < 0 ? -1 : fcntl(options_.pool_fd, F_DUPFD_CLOEXEC, 0));
  SendEnvelope(*peer.session, envelope, std::move(fd));
}

void DecodeHandoff::OnPathMeasured(uint64_t connection, Peer& peer, const proto::PathMeasured& measured) {
  pool_.Free(side_.OnMeasured(connection));
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

void DecodeHandoff::OnSessionClosed(uint64_t connection, const absl::Status& why) {
  const std::optional<WorkerId> worker = side_.WorkerOf(connection);
  if (!worker) return;  // replaced
  Peer& peer = peers_.at(*worker);
  peer.session.reset();
  ExecutePeer(*worker, side_.OnClosed(connection), Unavailable("lost ", peer.member.process(), ": ", Message(why)));
}

std::optional<int64_t> DecodeHandoff::SilentForMs(WorkerId worker) const {
  std::optional<int64_t> longest;
  for (const auto& [sequence, request] : side_.requests()) {
    if (request.prefill != worker || !IsEnding(request.state)) continue;
    const int64_t ms = MicrosecondsBetween(incoming_.at(sequence).ending_since, Clock::now()) / 1000;
    longest = std::max(longest.value_or(0), ms);
  }
  return longest;
}

void DecodeHandoff::CloseSilent(Clock::time_point now) {
  for (const auto& [sequence, request] : side_.requests()) {
    Incoming& incoming = incoming_.at(sequence);
    const bool late = now - incoming.ending_since > std::chrono::milliseconds(options_.last_word_ms);
    if (!IsEnding(request.state) || !late || std::exchange(incoming.given_up, true)) continue;
    Peer& peer = peers_.at(request.prefill);
    if (peer.session == nullptr || side_.peers().at(request.prefill).connection != request.connection) continue;
    LogWarning(peer.member.process(), " has not ended request ", incoming.request.id, ", which was cancelled ",
               options_.last_word_ms / 1000, " s ago: giving it up");
    peer.session->Close();  // the news of it comes by the inbox
  }
}

void DecodeHandoff::OnMembers(const proto::Members& members) {
  for (const proto::Member& member : members.members()) {
    const WorkerId worker{member.worker()};
    const bool dead = member.state() == proto::Member::DEAD;
    ExecutePeer(worker, side_.OnMember(worker, member.incarnation(), dead),
                Unavailable("lost ", member.process(), ": it has been started anew"));
    // Connected and measured before the first request, which should not pay for it.
    const bool sends_to_us = member.role() == proto::PREFILL && member.worker() != options_.self.worker();
    if (options_.connect_early && sends_to_us && member.state() == proto::Member::READY) EnsurePeer(member);
  }
}

void DecodeHandoff::ExecutePeer(WorkerId worker, const PeerDecision& decision, const absl::Status& why) {
  const auto peer = peers_.find(worker);
  if (decision.close != 0 && peer != peers_.end() && peer->second.session != nullptr) {
    std::exchange(peer->second.session, nullptr)->Close();
  }
  if (decision.report_lost) {
    options_.report_lost(worker, peer->second.incarnation, std::string(Message(why)));
  }
  pool_.Free(decision.free);
  for (const BlockId block : decision.fence) pool_.Fence(block);
  if (!decision.unfence.empty()) {
    LogInfo(decision.unfence.size(), " fenced blocks come home: worker ", worker.value, " has been reaped");
    for (const BlockId block : decision.unfence) pool_.Unfence(block);
  }
  for (const DecodeDecision& request : decision.requests) Execute(request, {.why = why});
}

int32_t DecodeHandoff::probe_blocks() const {
  int32_t blocks = 0;
  for (const auto& [worker, peer] : side_.peers()) blocks += static_cast<int32_t>(peer.lent.size());
  return blocks;
}

std::vector<proto::Path> DecodeHandoff::paths() const {
  std::vector<proto::Path> paths;
  for (const auto& [worker, peer] : peers_) {
    if (!peer.path.transport().empty() || !peer.refused.ok()) paths.push_back(peer.path);
  }
  return paths;
}

}  // namespace baton
