// The decode worker's side of the hand-off as a value: which messages, blocks and requests follow from which event.
// docs/handoff.md has the same tables for people; tests/explore searches what can be reached from here.
//
// A request goes through kDecodeTable, a row for each (state, event). Around it stand three rules that are not of one
// request: a message counts only on the connection and with the epoch that it belongs to; what a lost worker could
// still write is fenced; fences open when the supervisor has reaped that incarnation.
//
//   DecodeSide side(incarnation << 40);
//   if (auto decision = side.OnMessage(connection, epoch, DecodeEvent::kComplete)) { carry it out; }  // else: stale
//
// Pure: no I/O, clock, threads or blocks of its own. A value: copies are independent.
// Errors: an event that the state has no row for changes nothing.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/ids.h"

namespace baton {

enum class DecodeState : uint8_t {
  kWaiting,         // nothing was sent: waits for the connection, or for head-room
  kRequested,       // Prefill is sent
  kStarted,         // P computes; no blocks here yet
  kHeldThere,       // the first token came; P holds the blocks, for want of room here
  kReserved,        // Reservation is sent; P may write
  kArriving,        // likewise, and the first token came
  kEnding,          // over for the client; waits for P's last word
  kEndingReserved,  // likewise, and P may write
  kForgotten,
};

inline bool IsEnding(DecodeState state) {
  return state == DecodeState::kEnding || state == DecodeState::kEndingReserved;
}

enum class DecodeEvent : uint8_t {
  kHeadRoom,    // enough to ask P
  kStarted,     // message of P
  kReserved,    // the scheduler gave blocks
  kNeverFits,   // the scheduler refused for good
  kFirstToken,  // message of P
  kLastToken,   // message of P: the first token, which ends the answer
  kComplete,    // message of P, its last word
  kCorrupt,     // likewise, and some blocks do not have the bytes that it sent
  kQuiesced,    // message of P, its last word
  kRefused,     // Quiesced for a reason that holds here too
  kCancelled,   // by the client or the deadline
  kPeerLost,    // the connection ended; P could still write
  kPeerGone,    // P writes nothing: reaped, refused, or never reached
};

enum class DecodeAction : uint8_t {
  kNothing,
  kSendPrefill,
  kSendReservation,
  kSendCancel,
  kDeliverToken,
  kDeliverError,
  kDecode,     // the reserved blocks belong to a running sequence now
  kResume,     // likewise, but they are computed here from the first bad one on
  kRecompute,  // prefill here, from the tokens that the client has
};

// What becomes of the blocks that were reserved.
enum class BlocksFate : uint8_t { kKeep, kFree, kFence };

struct DecodeRow {
  DecodeState from;
  DecodeEvent event;
  BlocksFate blocks;
  std::array<DecodeAction, 2> actions;
  DecodeState to;
};
extern const std::span<const DecodeRow> kDecodeTable;

// Tests plant a bug by changing one; the product has the defaults.
struct DecodeRules {
  std::span<const DecodeRow> table = kDecodeTable;
  bool own_epoch_only = true;         // a message with an epoch that is not known is stale
  bool fence_until_reaped = true;     // lost is not gone
  bool fences_of_reaped_only = true;  // a reap opens the fences of that incarnation and older ones, no others
  bool lend_until_answered = true;    // blocks for a path measurement are fenced like others
  bool report_lost = true;            // who could still write must be killed
  bool superseded_is_lost = true;     // news of a later incarnation ends what the earlier one was doing
  bool closed_is_final = true;        // a session may close before the news of its opening comes
};

// What is to be done for one request.
struct DecodeDecision {
  SequenceId sequence;
  WorkerId prefill;
  uint64_t incarnation = 0;
  uint64_t connection = 0;
  uint64_t epoch = 0;
  DecodeState from = DecodeState::kWaiting;
  DecodeState to = DecodeState::kWaiting;  // kForgotten: this side no longer knows it
  BlocksFate blocks = BlocksFate::kKeep;   // goes before the actions
  std::array<DecodeAction, 2> actions = {};

  bool Does(DecodeAction action) const { return actions[0] == action || actions[1] == action; }
};

// What follows from news of another worker.
struct PeerDecision {
  uint64_t connect = 0;          // not 0: connect, and call the connection so
  uint64_t close = 0;            // not 0: that connection was replaced
  bool report_lost = false;      // it must be killed: it could still write
  std::vector<BlockId> free;     // lent blocks that nobody writes any more
  std::vector<BlockId> fence;    // lent blocks that it could still write
  std::vector<BlockId> unfence;  // of incarnations that have been reaped
  std::vector<DecodeDecision> requests;
};

class DecodeSide {
 public:
  struct Request {
    WorkerId prefill;
    uint64_t incarnation = 0;
    uint64_t connection = 0;
    uint64_t epoch = 0;  // 0 until Prefill was sent
    DecodeState state = DecodeState::kWaiting;
  };
  struct Peer {
    enum class Link : uint8_t { kNone, kConnecting, kOpen };
    uint64_t incarnation = 0;
    uint64_t connection = 0;
    Link link = Link::kNone;
    std::vector<BlockId> lent;  // to measure the path with, until it answers
  };
  struct Member {
    uint64_t incarnation = 0;
    bool dead = false;  // reaped
  };

  explicit DecodeSide(uint64_t epoch_base, const DecodeRules& rules = {}) : rules_(rules), next_epoch_(epoch_base) {}

  // ---- other workers ----
  // A prefill worker is needed; `incarnation` is what somebody has heard, perhaps not the latest.
  PeerDecision Need(WorkerId worker, uint64_t incarnation);
  PeerDecision OnConnected(uint64_t connection, bool ok);
  PeerDecision OnClosed(uint64_t connection);
  // From the supervisor. Older incarnations have been reaped; this one too if it is dead.
  PeerDecision OnMember(WorkerId worker, uint64_t incarnation, bool dead);
  // Blocks that the worker may write until it has answered, or has been reaped.
  void Lend(uint64_t connection, std::vector<BlockId> blocks);
  std::vector<BlockId> OnMeasured(uint64_t connection);  // its answer: these are free
  // Blocks of a decision whose fate was kFence.
  void Fence(const DecodeDecision& decision, const std::vector<BlockId>& blocks);

  // ---- requests ----
  // After Need. Waits for kHeadRoom, which may come once the connection is open.
  void Start(SequenceId sequence, WorkerId prefill);
  std::optional<DecodeDecision> Handle(SequenceId sequence, DecodeEvent event);
  // Nothing: stale, or out of turn.
  std::optional<DecodeDecision> OnMessage(uint64_t connection, uint64_t epoch, DecodeEvent event);

  // The request of a message that would count, and its state.
  std::optional<std::pair<SequenceId, DecodeState>> Find(uint64_t connection, uint64_t epoch) const;
  bool IsOpen(uint64_t connection) const;
  std::optional<WorkerId> WorkerOf(uint64_t connection) const;
  const std::map<SequenceId, Request>& requests() const { return requests_; }
  const std::map<WorkerId, Peer>& peers() const { return peers_; }
  const std::map<WorkerId, Member>& members() const { return members_; }
  const std::map<std::pair<WorkerId, uint64_t>, std::vector<BlockId>>& fenced() const { return fenced_; }

 private:
  using PeerEntry = std::pair<const WorkerId, Peer>;
  const PeerEntry* FindPeer(uint64_t connection) const;
  PeerEntry* FindPeer(uint64_t connection) { return const_cast<PeerEntry*>(std::as_const(*this).FindPeer(connection)); }
  bool IsReaped(WorkerId worker, uint64_t incarnation) const;
  void Lose(PeerEntry& peer, PeerDecision& decision);
  DecodeDecision Apply(SequenceId sequence, const DecodeRow& row);

  DecodeRules rules_;
  std::map<SequenceId, Request> requests_;  // in the order of arrival: sequence ids grow
  std::map<uint64_t, SequenceId> by_epoch_;
  std::map<WorkerId, Peer> peers_;
  std::map<WorkerId, Member> members_;
  std::map<std::pair<WorkerId, uint64_t>, std::vector<BlockId>> fenced_;
  uint64_t next_epoch_;
  uint64_t next_connection_ = 0;
};

}  // namespace baton
