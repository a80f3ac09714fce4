// The decode worker's side of the hand-off. It leads: asks a prefill worker for a prompt, reserves blocks when that
// worker has started, passes the first token on, and lets the sequence decode when its last block has arrived.
//
//   requested ──Started──> reserved ──FirstToken, Complete──> decoding
//       │ (no room yet: waits for blocks, P computes on)
//       └── any failure ──> recomputed here, with the tokens that the client already has
//
// A prefill worker that vanished could still write into blocks reserved for it. Those are fenced, and come back when
// that incarnation of its process has been reaped (OnMembers) or has said Quiesced.
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
#include "worker/inbox.h"
#include "worker/stream_table.h"

namespace baton {

struct DecodeHandoffOptions {
  proto::Hello self;
  KvLayout layout;
  std::string pool_descriptor;  // of the KV memory, for transports
  int pool_fd = -1;             // that goes with it; -1: none
  bool connect_early = true;    // to every prefill worker, not at the first request
  uint64_t epoch_base = 0;      // makes epochs of different incarnations differ
  // A session to a prefill worker ended: whoever can, makes sure that its process has ended too.
  std::function<void(WorkerId, uint64_t incarnation, const std::string& reason)> report_lost;
};

struct DecodeHandoffStats {
  uint64_t handoffs = 0;
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t stale_epochs = 0;
  uint64_t recomputed = 0;
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
  // Messages of P; `incarnation` names the session that they came by.
  void OnMessage(WorkerId prefill, uint64_t incarnation, const proto::Envelope& envelope);
  void OnSessionClosed(WorkerId prefill, uint64_t incarnation, const absl::Status& why);
  void OnMembers(const proto::Members& members);
  // After each step, or when blocks came free: sends what waited for head-room, reserves what waited for blocks.
  void Retry();

  const DecodeHandoffStats& stats() const { return stats_; }
  int32_t reservations() const;
  std::vector<proto::Path> paths() const;
  int32_t probe_blocks() const;  // in use for path measurements that are under way
  int32_t size() const { return static_cast<int32_t>(incoming_.size()); }

 private:
  enum class State : uint8_t { kWaitingForHeadRoom, kRequested, kStarted, kReserved, kEnding };
  struct Incoming {
    SequenceId sequence;
    Request request;
    WorkerId prefill;
    uint64_t incarnation = 0;
    State state = State::kWaitingForHeadRoom;
    uint64_t epoch = 0;
    bool reserved = false;  // the scheduler holds blocks for it
    std::optional<SampledToken> first_token;
    Clock::time_point prefill_ended;
  };
  struct Peer {
    proto::Member member;
    std::shared_ptr<Session> session;  // null while connecting
    bool connecting = false;
    std::vector<BlockId> probe_blocks;
    proto::Path path;
    absl::Status refused;
    std::vector<SequenceId> waiting;  // for the connection
  };

  Peer& EnsurePeer(const proto::Member& member);
  void OnConnected(WorkerId id, uint64_t incarnation, absl::StatusOr<std::shared_ptr<Session>> session);
  void OfferPool(Peer& peer);
  bool HasHeadRoom(const Incoming& incoming) const;
  std::vector<SequenceId> InTurn();  // those that wait for room
  void SendPrefill(Incoming& incoming);
  void SendCancel(const Incoming& incoming);
  bool TryReserve(Incoming& incoming);
  Incoming* FindEpoch(uint64_t epoch);
  void OnStarted(Incoming& incoming, const proto::Started& started);
  void OnFirstToken(Incoming& incoming, const proto::FirstToken& first);
  void OnComplete(Incoming& incoming, const proto::Complete& complete);
  void OnQuiesced(Incoming& incoming, const proto::Quiesced& quiesced);
  void OnPathMeasured(Peer& peer, const proto::PathMeasured& measured);
  void Recompute(Incoming& incoming, bool peer_may_write, const absl::Status& why);
  void Fence(WorkerId prefill, uint64_t incarnation, std::vector<BlockId> blocks);
  bool IsReaped(WorkerId prefill, uint64_t incarnation) const;
  void Erase(SequenceId sequence);

  Connector& connector_;
  Inbox& inbox_;
  Scheduler& scheduler_;
  BlockPool& pool_;
  StreamTable& streams_;
  const DecodeHandoffOptions options_;
  std::map<SequenceId, Incoming> incoming_;  // in the order of arrival: sequence ids grow
  std::map<uint64_t, SequenceId> by_epoch_;
  std::map<WorkerId, Peer> peers_;
  std::map<WorkerId, proto::Member> members_;
  std::map<std::pair<WorkerId, uint64_t>, std::vector<BlockId>> fenced_;
  std::map<std::string, uint64_t> last_turns_;  // of users with something here: when a prefill was last asked for
  uint64_t next_turn_ = 0;
  uint64_t next_epoch_;
  DecodeHandoffStats stats_;
};

}  // namespace baton
