#include "worker/decode_side.h"

#include <algorithm>

namespace baton {
namespace {

using S = DecodeState;
using E = DecodeEvent;
using A = DecodeAction;
using B = BlocksFate;
constexpr auto kNo = A::kNothing;

// clang-format off
constexpr DecodeRow kRows[] = {
  // state            event          blocks     what happens                           state after
  {S::kWaiting,       E::kHeadRoom,  B::kKeep,  {A::kSendPrefill, kNo},                S::kRequested},
  {S::kWaiting,       E::kCancelled, B::kKeep,  {kNo, kNo},                            S::kForgotten},
  {S::kWaiting,       E::kPeerLost,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kWaiting,       E::kPeerGone,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kRequested,     E::kStarted,   B::kKeep,  {kNo, kNo},                            S::kStarted},
  {S::kRequested,     E::kQuiesced,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kRequested,     E::kRefused,   B::kKeep,  {A::kDeliverError, kNo},               S::kForgotten},
  {S::kRequested,     E::kCancelled, B::kKeep,  {A::kSendCancel, kNo},                 S::kEnding},
  {S::kRequested,     E::kPeerLost,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kRequested,     E::kPeerGone,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kStarted,       E::kReserved,  B::kKeep,  {A::kSendReservation, kNo},            S::kReserved},
  {S::kStarted,       E::kNeverFits, B::kKeep,  {A::kSendCancel, A::kDeliverError},    S::kEnding},
  {S::kStarted,       E::kFirstToken, B::kKeep, {A::kDeliverToken, kNo},               S::kHeldThere},
  {S::kStarted,       E::kLastToken, B::kKeep,  {A::kDeliverToken, kNo},               S::kEnding},
  {S::kStarted,       E::kQuiesced,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kStarted,       E::kRefused,   B::kKeep,  {A::kDeliverError, kNo},               S::kForgotten},
  {S::kStarted,       E::kCancelled, B::kKeep,  {A::kSendCancel, kNo},                 S::kEnding},
  {S::kStarted,       E::kPeerLost,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kStarted,       E::kPeerGone,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kHeldThere,     E::kReserved,  B::kKeep,  {A::kSendReservation, kNo},            S::kArriving},
  {S::kHeldThere,     E::kNeverFits, B::kKeep,  {A::kSendCancel, A::kDeliverError},    S::kEnding},
  {S::kHeldThere,     E::kQuiesced,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kHeldThere,     E::kRefused,   B::kKeep,  {A::kDeliverError, kNo},               S::kForgotten},
  {S::kHeldThere,     E::kCancelled, B::kKeep,  {A::kSendCancel, kNo},                 S::kEnding},
  {S::kHeldThere,     E::kPeerLost,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kHeldThere,     E::kPeerGone,  B::kKeep,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kReserved,      E::kFirstToken, B::kKeep, {A::kDeliverToken, kNo},               S::kArriving},
  {S::kReserved,      E::kLastToken, B::kKeep,  {A::kDeliverToken, kNo},               S::kEndingReserved},
  {S::kReserved,      E::kQuiesced,  B::kFree,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kReserved,      E::kRefused,   B::kFree,  {A::kDeliverError, kNo},               S::kForgotten},
  {S::kReserved,      E::kCancelled, B::kKeep,  {A::kSendCancel, kNo},                 S::kEndingReserved},
  {S::kReserved,      E::kPeerLost,  B::kFence, {A::kRecompute, kNo},                  S::kForgotten},
  {S::kReserved,      E::kPeerGone,  B::kFree,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kArriving,      E::kComplete,  B::kKeep,  {A::kDecode, kNo},                     S::kForgotten},
  {S::kArriving,      E::kCorrupt,   B::kKeep,  {A::kResume, kNo},                     S::kForgotten},
  {S::kArriving,      E::kQuiesced,  B::kFree,  {A::kRecompute, kNo},                  S::kForgotten},
  {S::kArriving,      E::kRefused,   B::kFree,  {A::kDeliverError, kNo},               S::kForgotten},
  {S::kArriving,      E::kCancelled, B::kKeep,  {A::kSendCancel, kNo},                 S::kEndingReserved},
  {S::kArriving,      E::kPeerLost,  B::kFence, {A::kRecompute, kNo},                  S::kForgotten},
  {S::kArriving,      E::kPeerGone,  B::kFree,  {A::kRecompute, kNo},                  S::kForgotten},

  {S::kEnding,        E::kStarted,   B::kKeep,  {kNo, kNo},                            S::kEnding},
  {S::kEnding,        E::kFirstToken, B::kKeep, {kNo, kNo},                            S::kEnding},
  {S::kEnding,        E::kLastToken, B::kKeep,  {kNo, kNo},                            S::kEnding},
  {S::kEnding,        E::kComplete,  B::kKeep,  {kNo, kNo},                            S::kForgotten},
  {S::kEnding,        E::kQuiesced,  B::kKeep,  {kNo, kNo},                            S::kForgotten},
  {S::kEnding,        E::kRefused,   B::kKeep,  {kNo, kNo},                            S::kForgotten},
  {S::kEnding,        E::kPeerLost,  B::kKeep,  {kNo, kNo},                            S::kForgotten},
  {S::kEnding,        E::kPeerGone,  B::kKeep,  {kNo, kNo},                            S::kForgotten},

  {S::kEndingReserved, E::kFirstToken, B::kKeep, {kNo, kNo},                           S::kEndingReserved},
  {S::kEndingReserved, E::kLastToken, B::kKeep, {kNo, kNo},                            S::kEndingReserved},
  {S::kEndingReserved, E::kComplete, B::kFree,  {kNo, kNo},                            S::kForgotten},
  {S::kEndingReserved, E::kQuiesced, B::kFree,  {kNo, kNo},                            S::kForgotten},
  {S::kEndingReserved, E::kRefused,  B::kFree,  {kNo, kNo},                            S::kForgotten},
  {S::kEndingReserved, E::kPeerLost, B::kFence, {kNo, kNo},                            S::kForgotten},
  {S::kEndingReserved, E::kPeerGone, B::kFree,  {kNo, kNo},                            S::kForgotten},
};
// clang-format on

const DecodeRow* FindRow(std::span<const DecodeRow> table, DecodeState from, DecodeEvent event) {
  const auto row = std::ranges::find_if(table, [&](const DecodeRow& r) { return r.from == from && r.event == event; });
  return row == table.end() ? nullptr : &*row;
}

}  // namespace

constinit const std::span<const DecodeRow> kDecodeTable = kRows;

// ---- other workers ----

const DecodeSide::PeerEntry* DecodeSide::FindPeer(uint64_t connection) const {
  const auto found =
      std::ranges::find_if(peers_, [&](const PeerEntry& e) { return e.second.connection == connection; });
  return found == peers_.end() || found->second.link == Peer::Link::kNone ? nullptr : &*found;
}

bool DecodeSide::IsOpen(uint64_t connection) const {
  const PeerEntry* peer = FindPeer(connection);
  return peer != nullptr && peer->second.link == Peer::Link::kOpen;
}

std::optional<WorkerId> DecodeSide::WorkerOf(uint64_t connection) const {
  const PeerEntry* peer = FindPeer(connection);
  return peer == nullptr ? std::nullopt : std::optional(peer->first);
}

bool DecodeSide::IsReaped(WorkerId worker, uint64_t incarnation) const {
  const auto member = members_.find(worker);
  if (member == members_.end()) return false;
  return member->second.incarnation > incarnation || (member->second.incarnation == incarnation && member->second.dead);
}

// The connection has ended, or never came about: so have all requests on it.
void DecodeSide::Lose(PeerEntry& entry, PeerDecision& decision) {
  auto& [worker, peer] = entry;
  const bool was_open = std::exchange(peer.link, Peer::Link::kNone) == Peer::Link::kOpen;
  // Before it was open nothing was lent or reserved.
  const bool may_write = was_open && !IsReaped(worker, peer.incarnation);
  decision.report_lost = may_write && rules_.report_lost;
  std::vector<BlockId> lent = std::exchange(peer.lent, {});
  if (may_write && rules_.lend_until_answered && !lent.empty()) {
    std::vector<BlockId>& fenced = fenced_[{worker, peer.incarnation}];
    fenced.insert(fenced.end(), lent.begin(), lent.end());
    decision.fence = std::move(lent);
  } else {
    decision.free = std::move(lent);
  }
  std::vector<SequenceId> lost;
  for (const auto& [sequence, request] : requests_) {
    if (request.connection == peer.connection) lost.push_back(sequence);
  }
  const DecodeEvent event = may_write && rules_.fence_until_reaped ? DecodeEvent::kPeerLost : DecodeEvent::kPeerGone;
  for (const SequenceId sequence : lost) {
    if (const auto request = Handle(sequence, event)) decision.requests.push_back(*request);
  }
}

PeerDecision DecodeSide::Need(WorkerId worker, uint64_t incarnation) {
  // A later incarnation than the supervisor has told of: it will, and the earlier one has been reaped.
  PeerDecision decision = OnMember(worker, incarnation, false);
  Peer& peer = peers_[worker];
  if (peer.link != Peer::Link::kNone) return decision;
  peer.incarnation = members_.at(worker).incarnation;
  peer.connection = decision.connect = ++next_connection_;
  peer.link = Peer::Link::kConnecting;
  return decision;
}

PeerDecision DecodeSide::OnConnected(uint64_t connection, bool ok) {
  PeerDecision decision;
  PeerEntry* entry = FindPeer(connection);
  if (entry == nullptr || entry->second.link != Peer::Link::kConnecting) {
    decision.close = connection;  // replaced, or closed before this news came
  } else if (ok) {
    entry->second.link = Peer::Link::kOpen;
  } else {
    Lose(*entry, decision);
  }
  return decision;
}

PeerDecision DecodeSide::OnClosed(uint64_t connection) {
  PeerDecision decision;
  PeerEntry* entry = FindPeer(connection);
  if (entry != nullptr && (rules_.closed_is_final || entry->second.link == Peer::Link::kOpen)) Lose(*entry, decision);
  return decision;
}

PeerDecision DecodeSide::OnMember(WorkerId worker, uint64_t incarnation, bool dead) {
  PeerDecision decision;
  Member& member = members_[worker];
  if (incarnation > member.incarnation) {
    member = {incarnation, dead};
  } else if (incarnation == member.incarnation) {
    member.dead |= dead;
  }
  const auto entry = peers_.find(worker);
  if (entry != peers_.end() && entry->second.link != Peer::Link::kNone &&
      entry->second.incarnation < member.incarnation) {
    decision.close = entry->second.connection;
    if (rules_.superseded_is_lost) {
      Lose(*entry, decision);
    } else {
      entry->second = Peer{};
    }
  }
  std::erase_if(fenced_, [&](const auto& fenced) {
    const auto& [owner, owner_incarnation] = fenced.first;
    const bool open = rules_.fences_of_reaped_only ? IsReaped(owner, owner_incarnation) : owner == worker;
    if (open) decision.unfence.insert(decision.unfence.end(), fenced.second.begin(), fenced.second.end());
    return open;
  });
  return decision;
}

void DecodeSide::Lend(uint64_t connection, std::vector<BlockId> blocks) {
  if (PeerEntry* entry = FindPeer(connection)) entry->second.lent = std::move(blocks);
}

std::vector<BlockId> DecodeSide::OnMeasured(uint64_t connection) {
  PeerEntry* entry = FindPeer(connection);
  return entry == nullptr ? std::vector<BlockId>() : std::exchange(entry->second.lent, {});
}

void DecodeSide::Fence(const DecodeDecision& decision, const std::vector<BlockId>& blocks) {
  if (blocks.empty()) return;
  std::vector<BlockId>& fenced = fenced_[{decision.prefill, decision.incarnation}];
  fenced.insert(fenced.end(), blocks.begin(), blocks.end());
}

// ---- requests ----

void DecodeSide::Start(SequenceId sequence, WorkerId prefill) {
  const Peer& peer = peers_.at(prefill);
  requests_[sequence] = {.prefill = prefill, .incarnation = peer.incarnation, .connection = peer.connection};
}

DecodeDecision DecodeSide::Apply(SequenceId sequence, const DecodeRow& row) {
  Request& request = requests_.at(sequence);
  if (row.actions[0] == DecodeAction::kSendPrefill) {
    request.epoch = ++next_epoch_;
    by_epoch_[request.epoch] = sequence;
  }
  request.state = row.to;
  DecodeDecision decision{.sequence = sequence,
                          .prefill = request.prefill,
                          .incarnation = request.incarnation,
                          .connection = request.connection,
                          .epoch = request.epoch,
                          .from = row.from,
                          .to = row.to,
                          .blocks = row.blocks,
                          .actions = row.actions};
  if (row.to == DecodeState::kForgotten) {
    by_epoch_.erase(request.epoch);
    requests_.erase(sequence);
  }
  return decision;
}

std::optional<DecodeDecision> DecodeSide::Handle(SequenceId sequence, DecodeEvent event) {
  const auto request = requests_.find(sequence);
  if (request == requests_.end()) return std::nullopt;
  const DecodeRow* row = FindRow(rules_.table, request->second.state, event);
  return row == nullptr ? std::nullopt : std::optional(Apply(sequence, *row));
}

std::optional<std::pair<SequenceId, DecodeState>> DecodeSide::Find(uint64_t connection, uint64_t epoch) const {
  const auto found = by_epoch_.find(epoch);
  if (found == by_epoch_.end()) return std::nullopt;
  const Request& request = requests_.at(found->second);
  if (request.connection != connection) return std::nullopt;
  return std::pair(found->second, request.state);
}

std::optional<DecodeDecision> DecodeSide::OnMessage(uint64_t connection, uint64_t epoch, DecodeEvent event) {
  auto found = by_epoch_.find(epoch);
  if (!rules_.own_epoch_only && found == by_epoch_.end()) found = by_epoch_.begin();
  if (found == by_epoch_.end()) return std::nullopt;
  // Epochs are used once, so this is the worker's mistake. Requests of a connection that has ended are gone.
  if (requests_.at(found->second).connection != connection) return std::nullopt;
  return Handle(found->second, event);
}

}  // namespace baton
