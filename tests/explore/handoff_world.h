// A small world around the product's DecodeSide and PrefillSide: one decode worker D, one prefill worker P, the
// sessions between them, the supervisor, the router's requests, D's block pool, P's scheduler and its copies. A value:
// the explorer copies it, applies an event, and looks at what came out.
//
// What is modelled, and how:
//   * A session is two ordered wires. It can break (what is under way is lost or not), and each end hears of it later,
//     at a time of its own. Its news "connected" and "closed" may come to D in either order.
//   * Reservation and CancelPrefill act on P when they arrive; everything else waits in P's inbox, as in the product.
//   * A copy is a post of pieces, written one by one, at any later time. A cancelled one may have a piece that is being
//     written, and that piece still lands. A process that is frozen in the middle of a write and resumes is the same as
//     one whose next event comes late, so the search has it everywhere.
//   * The bytes of a block are one mark for each layer: whose they are, or garbage. A copy reads its source when it
//     writes; a source that was given back is garbage by then. A copy may go wrong unheard; then D's comparison of
//     digests, with `verify`, is all that stands before the client.
//   * The supervisor kills whom D reports lost, reaps whoever died, starts it again at the same address, and tells D of
//     each in order. The router may name an incarnation that is not the latest.
//
// Errors: error() is the first rule that was broken, or empty.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/decode_side.h"
#include "worker/prefill_side.h"

namespace baton {

struct WorldOptions {
  int32_t requests = 1;
  int32_t blocks = 2;              // of D's pool
  int32_t blocks_per_request = 2;  // at most 3
  bool shared_prefix = false;      // the first block of all prompts is the same
  bool probe = false;              // D lends a block to measure the path with
  bool early_connect = false;      // D connects when it hears of P
  bool early_ends = false;         // a first token may end the answer; a prompt may be refused, or never fit
  // How often each of these may happen.
  int32_t p_deaths = 0;
  int32_t d_deaths = 0;
  int32_t breaks = 0;
  int32_t cancels = 0;  // or deadlines: the same to both machines
  int32_t duplicates = 0;
  int32_t preemptions = 0;
  int32_t copy_failures = 0;
  int32_t corruptions = 0;  // pieces that arrive with other bytes; nobody who copies hears of it
  bool verify = false;      // D compares what arrived with what was sent
  // A restarted D counts its epochs from where the one before began, as another D would.
  bool epochs_repeat = false;
  DecodeRules decode;
  PrefillRules prefill;
};

enum class WorldEvent : uint8_t {
  // the router and the clients
  kAsk,  // request, incarnation of P that the router knows
  kCancel,
  // D
  kHeadRoom,
  kReserve,
  kNeverFits,
  kLocalAdmit,
  kFinish,
  kConnected,
  kConnectFailed,
  kDecodeReceives,
  kDecodeClosed,
  kMembers,
  // P
  kAccept,  // a connection of D
  kPrefillReceives,
  kPrefillClosed,
  kInbox,  // one message: 0; Prefill that P's scheduler refuses: 1, for good: 2
  kMeasured,
  kStep,  // the next event of a sequence's computation
  kEndsAtOnce,
  kPreempt,
  kLease,
  kDeadlineAtP,  // P ends a prompt by itself
  kWrite,        // the next piece of the first copy
  kLateWrite,
  kCorruptWrite,
  kCopyEnded,
  kCopyFails,
  // faults, and who mends them
  kBreak,
  kBreakAndLose,
  kDuplicateToPrefill,
  kDuplicateToDecode,
  kPrefillDies,
  kDecodeDies,
  kKilled,
  kReaped,
  kRestarted,
};

struct Choice {
  WorldEvent event = WorldEvent::kAsk;
  uint8_t a = 0;
  uint8_t b = 0;
  bool operator==(const Choice&) const = default;
};

class World {
 public:
  using Choice = baton::Choice;
  using Options = WorldOptions;

  explicit World(const WorldOptions& options);

  std::vector<Choice> Choices() const;  // faults included, as far as they are left
  // Whether it comes by itself, sooner or later: not a fault, nor a client's whim.
  static bool IsFair(const Choice& choice);
  void Apply(const Choice& choice);
  std::string Describe(const Choice& choice) const;  // before it is applied

  const std::string& error() const { return error_; }
  // With no fair choice left: everything has ended and every block is home, or why not.
  std::string CheckEnd() const;
  // Equal bytes: equal futures.
  void AppendKey(std::string& key) const;

 private:
  static constexpr int32_t kLayers = 2;
  static constexpr uint8_t kGarbage = 255;
  static uint64_t EpochBase(uint8_t incarnation) { return uint64_t{incarnation} << 16; }

  struct Message {
    enum class Kind : uint8_t {
      kOffer,
      kPrefill,
      kReservation,
      kCancel,
      kMeasured,
      kStarted,
      kFirstToken,
      kLastToken,
      kComplete,
      kQuiesced,
      kRefused,
      kClosed,
      kAbort,
      kRelease,  // in P's inbox only
    };
    Kind kind = Kind::kOffer;
    uint8_t session = 0;
    uint8_t request = 0;
    uint64_t number = 0;   // epoch; of an offer, the incarnation that is meant; of the last two, the sequence
    bool refused = false;  // of kMeasured
    std::vector<BlockId> blocks;
    int32_t first_missing = 0;
  };
  struct Session {
    uint8_t id = 0;
    uint8_t d_incarnation = 0;
    uint8_t p_incarnation = 0;
    uint64_t connection = 0;  // D's name for it
    bool broken = false;
    bool decode_knows = false;    // D has heard that it is connected
    bool decode_closed = false;   // D has heard that it is closed, or is dead
    bool prefill_closed = false;  // likewise
    std::vector<Message> to_prefill;
    std::vector<Message> to_decode;
  };
  struct Block {
    uint8_t owners = 0;  // requests, a bit each
    bool lent = false;
    bool fenced = false;
    bool published = false;             // the shared prefix is here, for others to use
    std::array<uint8_t, 2> marks = {};  // of each layer
    bool IsFree() const { return owners == 0 && !lent && !fenced; }
  };
  enum class Phase : uint8_t { kIdle, kHanded, kLocalWaiting, kLocalRunning, kDecoding, kDone };
  struct Request {
    Phase phase = Phase::kIdle;
    bool cancelled = false;
    bool token = false;   // the client has the first one
    uint8_t session = 0;  // by which Prefill went
    int32_t first_missing = 0;
    std::vector<BlockId> blocks;
  };
  struct Sequence {  // in P's scheduler
    SequenceId id;
    uint8_t request = 0;
    uint8_t generation = 0;  // admissions
    uint8_t position = 0;    // three for each block: planned, a layer, the other layer
    bool admitted = true;    // the next plan is the first since an admission
    bool aborted = false;
    bool held = false;
  };
  struct Copy {
    uint64_t tag = 0;
    uint8_t session = 0;
    uint8_t request = 0;
    SequenceId sequence;
    uint8_t generation = 0;
    uint8_t d_incarnation = 0;
    uint8_t next = 0;
    bool cancelled = false;
    bool late = false;  // a piece is being written
    std::vector<PushPiece> pieces;
  };

  // A prompt that P has accepted.
  struct Prompt {
    uint64_t tag = 0;
    uint8_t session = 0;
    uint8_t request = 0;
    uint64_t epoch = 0;
    SequenceId sequence;
    bool refused_for_good = false;
  };

  void Fail(std::string error);
  Session* FindSession(uint8_t id);
  const Session* FindSession(uint8_t id) const;
  int32_t FreeBlocks() const;
  int32_t FindShared() const;
  int32_t BlocksNeeded() const;
  uint8_t Mark(uint8_t request, size_t block) const;
  SequenceId DecodeSequence(uint8_t request) const { return {1u + request + 16u * d_incarnation_}; }

  // D
  void Ask(uint8_t request, uint64_t incarnation);
  void Connected(Session& session);
  void ExecutePeer(const PeerDecision& decision);
  void Execute(const std::optional<DecodeDecision>& decision);
  void Act(DecodeAction action, const DecodeDecision& decision);
  void SendToPrefill(const DecodeDecision& decision, Message message);
  std::vector<BlockId> GiveBack(uint8_t request, bool fence);
  void TakeBlocks(uint8_t request);
  void DecodeReceives(Session& session);
  void Run(uint8_t request, Phase phase);
  void CheckArrived(uint8_t request, std::string_view when);
  std::optional<size_t> FindCorrupt(uint8_t request) const;  // the first block whose bytes are not its own
  void EndRequest(uint8_t request);
  // P
  void Execute(const std::optional<PrefillDecision>& decision);
  void SendToDecode(const Prompt& prompt, Message::Kind kind);
  void Answer(uint8_t session, bool refused);
  void PrefillReceives(Session& session);
  void RunInbox(uint8_t how);
  void AskPrefill(const Message& message, uint8_t how);
  void Measured();
  void Step(size_t index, bool ends);
  bool InStep() const;
  uint8_t StepsOfPrompt() const { return static_cast<uint8_t>(3 * options_.blocks_per_request); }
  void WritePiece(Copy& copy, bool corrupt = false);
  void EndCopy(size_t index, bool ok);
  // the rest
  void PrefillDies();
  void Restart();
  void DecodeDies();
  void DropClosedSessions();
  void AddDecodeChoices(std::vector<Choice>& choices) const;
  void AddPrefillChoices(std::vector<Choice>& choices) const;
  void AddSessionChoices(std::vector<Choice>& choices) const;
  void AddFaults(std::vector<Choice>& choices) const;
  void ApplyToDecode(const Choice& choice);
  void ApplyToPrefill(const Choice& choice);
  void ApplyFault(const Choice& choice);
  void CheckWritable();
  void CheckMayBeWritten(BlockId block, uint8_t session, uint8_t request, std::string_view by);

  bool Fits() const;

  WorldOptions options_;
  std::string error_;
  int32_t p_deaths_ = 0, d_deaths_ = 0, breaks_ = 0, cancels_ = 0, duplicates_ = 0, preemptions_ = 0,
          copy_failures_ = 0, corruptions_ = 0;

  std::vector<Session> sessions_;
  uint8_t next_session_ = 1;
  // the supervisor
  uint8_t p_incarnation_ = 1;
  bool p_alive_ = true;
  bool p_reaped_ = false;
  bool p_reported_ = false;
  std::vector<DecodeSide::Member> news_;  // of P, on their way to D
  // D
  uint8_t d_incarnation_ = 1;
  DecodeSide decode_;
  std::vector<uint64_t> connecting_;
  uint64_t refused_incarnation_ = 0;
  std::vector<Block> pool_;
  std::vector<Request> requests_;
  // P
  PrefillSide prefill_;
  std::vector<Message> inbox_;
  uint8_t measuring_ = 0;  // the session whose path is being measured
  std::vector<BlockId> measured_blocks_;
  std::vector<Sequence> sequences_;
  std::vector<Copy> copies_;
  std::vector<Prompt> prompts_;
  uint64_t next_sequence_ = 0;
};

}  // namespace baton
