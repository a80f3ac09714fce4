// The decode worker's side of the hand-off. It leads: asks a prefill worker for a prompt, reserves blocks when that
// worker has started, passes the first token on, and lets the sequence decode when its last block has arrived.
//
// DecodeSide (decode_side.h) decides; this class feeds it events and carries its decisions out: messages, blocks,
// tokens, sequences. decode_peers.cc has what concerns other workers, decode_handoff.cc what concerns one request.
//
// Threading: the step loop's thread only. Ownership: scheduler, pool and stream table must outlive it.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/kv_layout.h"
#include "kv/block_pool.h"
#include "proto/baton.pb.h"
#include "rpc/envelope.h"
#include "scheduler/scheduler.h"
#include "worker/decode_side.h"
#include "worker/inbox.h"
#include "worker/stream_table.h"

namespace baton {

struct DecodeHandoffOptions {
  proto::Hello self;
  KvLayout layout;
  std::string pool_descriptor;      // of the KV memory, for transports
  int pool_fd = -1;                 // that goes with it; -1: none
  bool connect_early = true;        // to every prefill worker, not at the first request
  uint64_t epoch_base = 0;          // makes epochs of different incarnations differ
  int64_t last_word_ms = 30000;     // after a cancel, before the connection to a prefill worker is given up
  const uint8_t* verify = nullptr;  // the pool's memory: every block that was handed over is compared with its digest
  // A session to a prefill worker ended: whoever can, makes sure that its process has ended too.
  std::function<void(WorkerId, uint64_t incarnation, const std::string& reason)> report_lost;
};

struct DecodeHandoffStats {
  uint64_t handoffs = 0;
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t stale_epochs = 0;
  uint64_t recomputed = 0;
  uint64_t blocks_verified = 0;
  uint64_t blocks_corrupt = 0;  // of them; from the first one on a prompt is computed here
};

class DecodeHandoff {
 public:
  using Clock = std::chrono::steady_clock;

  DecodeHandoff(Connector& connector, Inbox& inbox, Scheduler& scheduler, BlockPool& pool, StreamTable& streams,
                DecodeHandoffOptions options);

  // Takes a sequence that `prefill` shall read. It is sent there when head-room suffices.
  void Start(SequenceId sequence, Request request, const proto::Member& prefill);
  // Stops a sequence that has not begun to decode. False: not one of these.
  bool Cancel(SequenceId sequence);
  void OnMembers(const proto::Members& members);
  // After each step, or when blocks came free: sends what waited for head-room, reserves what waited for blocks.
  void Retry();
  // Closes the session to a prefill worker that lives and does not end what was cancelled long ago. It is reported
  // lost.
  void CloseSilent(Clock::time_point now);

  const DecodeHandoffStats& stats() const { return stats_; }
  int32_t reservations() const;
  std::vector<proto::Path> paths() const;
  int32_t probe_blocks() const;  // in use for path measurements that are under way
  int32_t size() const { return static_cast<int32_t>(side_.requests().size()); }

 private:
  // What goes with a request of side_.
  struct Incoming {
    Request request;
    std::vector<BlockId> shared;    // of a pool that P uses too: a reference each, until they are reserved
    int32_t shared_cached = 0;      // tokens that P found in the prefix cache
    RemoteReservation reservation;  // from TryReserve on
    int32_t good_blocks = 0;        // of a corrupt one: those before the first bad one
    std::optional<SampledToken> first_token;
    Clock::time_point prefill_ended;
    Clock::time_point ending_since;  // of one whose last word is still to come
    bool given_up = false;           // it did not come
  };
  // What goes with a peer of side_.
  struct Peer {
    proto::Member member;
    uint64_t incarnation = 0;
    std::shared_ptr<Session> session;  // null unless the connection is open
    bool shared_pool = false;          // a worker of the same step loop
    proto::Path path;
    absl::Status refused;  // by P: it hands nothing over to this worker
  };

  // ---- decode_peers.cc ----
  Peer& EnsurePeer(const proto::Member& member);
  void Connect(WorkerId worker, uint64_t connection);
  void OnConnected(uint64_t connection, absl::StatusOr<std::shared_ptr<Session>> session);
  void OnSessionClosed(uint64_t connection, const absl::Status& why);
  std::optional<int64_t> SilentForMs(WorkerId worker) const;  // since the oldest cancel that it has not answered
  void ExecutePeer(WorkerId worker, const PeerDecision& decision, const absl::Status& why);
  void OfferPool(uint64_t connection, Peer& peer);
  void OnPathMeasured(uint64_t connection, Peer& peer, const proto::PathMeasured& measured);

  // ---- decode_handoff.cc ----
  // What a decision came from.
  struct Cause {
    absl::Status why;                          // what a recompute logs and an error says
    const proto::Envelope* message = nullptr;  // of P
  };
  void OnMessage(uint64_t connection, const proto::Envelope& envelope);
  bool HasHeadRoom(const Incoming& incoming) const;
  std::vector<SequenceId> InTurn();  // those that wait for room
  bool SharesPool(SequenceId sequence) const { return peers_.at(side_.requests().at(sequence).prefill).shared_pool; }
  absl::StatusOr<RemoteReservation> Reserve(SequenceId sequence);
  bool TryReserve(SequenceId sequence);  // false: no room now
  void Execute(const std::optional<DecodeDecision>& decision, const Cause& cause);
  void SettleBlocks(const DecodeDecision& decision);
  void Act(DecodeAction action, const DecodeDecision& decision, const Cause& cause);
  void Send(const DecodeDecision& decision, const proto::Envelope& envelope);
  void SendPrefill(const DecodeDecision& decision);
  void SendReservation(const DecodeDecision& decision);
  void NoteStarted(SequenceId sequence, const proto::Started& started);
  void DeliverToken(const DecodeDecision& decision, const proto::FirstToken& first);
  void Decode(const DecodeDecision& decision, const proto::Complete& complete);
  DecodeEvent Verify(uint64_t connection, const proto::Complete& complete);
  void Recompute(const DecodeDecision& decision, const absl::Status& why);

  Connector& connector_;
  Inbox& inbox_;
  Scheduler& scheduler_;
  BlockPool& pool_;
  StreamTable& streams_;
  const DecodeHandoffOptions options_;
  DecodeSide side_;
  std::map<SequenceId, Incoming> incoming_;
  std::map<WorkerId, Peer> peers_;
  std::map<std::string, uint64_t> last_turns_;  // of users with something here: when a prefill was last asked for
  uint64_t next_turn_ = 0;
  DecodeHandoffStats stats_;
};

}  // namespace baton
