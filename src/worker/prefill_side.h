// The prefill worker's side of the hand-off as a value: which messages, copies and requests to the scheduler follow
// from which event. docs/handoff.md has the same table for people; tests/explore searches what can be reached from
// here.
//
// A prompt goes through kPrefillTable, a row for each (state, event). Two events come from inside: everything has been
// pushed, and nothing is in flight any more.
//
// Pure: no I/O, clock, threads or bytes. A value: copies are independent.
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
#include "worker/push_progress.h"

namespace baton {

enum class PrefillState : uint8_t {
  kQueued,     // waits in P's scheduler
  kComputing,  // Started is sent; no reservation yet
  kPushing,    // computes and pushes
  kHeld,       // FirstToken is sent; holds the blocks, waits for the reservation
  kFinishing,  // FirstToken is sent; pushes what is left
  kEnding,     // pushes no more; waits until nothing is in flight
  kForgotten,
};

enum class PrefillEvent : uint8_t {
  kPlanned,      // a step will compute a part of it
  kLayersDone,   // of the step
  kReservation,  // message of D
  kFirstToken,   // a step has sampled it
  kLastToken,    // likewise, and it ends the answer
  kFailed,       // refused by the scheduler, or a step or copy failed, or D reserved nonsense
  kLeaseExpired,
  kCancelled,      // message of D
  kSessionClosed,  // D may be gone
  kCopyEnded,      // a post; what follows from it is one of the next two
  kAllPushed,      // from inside: nothing is in flight, and nothing is left to push
  kQuiet,          // from inside: nothing is in flight
};

// In the order in which they are carried out.
enum class PrefillAction : uint8_t {
  kNothing,
  kSendStarted,
  kSendFirstToken,
  kCancelCopies,   // each ends at its next piece, and says so
  kStopComputing,  // and free the blocks here
  kRelease,        // likewise, of a computed prompt
  kPush,
  kSendComplete,
  kSendQuiesced,
};

struct PrefillRow {
  PrefillState from;
  PrefillEvent event;
  std::array<PrefillAction, 3> actions;
  PrefillState to;
};
extern const std::span<const PrefillRow> kPrefillTable;

// Tests plant a bug by changing one; the product has the defaults.
struct PrefillRules {
  std::span<const PrefillRow> table = kPrefillTable;
  PushRules push;
  bool complete_after_copies = true;  // Complete only when nothing is in flight
  bool quiesce_after_copies = true;   // Quiesced likewise
  bool own_session_only = true;       // an epoch belongs to the session that it came by
  bool own_incarnation_only = true;   // who means an earlier process at this address is refused
  bool one_prompt_an_epoch = true;    // a repeated Prefill is ignored
};

struct PrefillDecision {
  uint64_t tag = 0;
  PrefillState to = PrefillState::kQueued;  // kForgotten: this side no longer knows it
  std::vector<PrefillAction> actions;       // in order
  std::vector<PushPiece> pieces;            // of kPush: one post, whose end is reported by CopyEnded

  bool Ends() const { return to == PrefillState::kEnding || to == PrefillState::kForgotten; }
};

class PrefillSide {
 public:
  using Session = uint64_t;  // the caller's name for it, never used twice

  struct Prompt {
    Session session = 0;
    uint64_t epoch = 0;
    SequenceId sequence;
    PrefillState state = PrefillState::kQueued;
    int32_t in_flight = 0;  // posts
    PushProgress progress;
  };
  struct Peer {
    bool accepted = false;
    uint64_t last_epoch = 0;
  };
  enum class Asked : uint8_t { kAccepted, kRefused, kRepeated };

  PrefillSide(uint64_t incarnation, int32_t num_layers, const PrefillRules& rules = {})
      : rules_(rules), incarnation_(incarnation), num_layers_(num_layers) {}

  // ---- decode workers ----
  // Whether an offer to `incarnation` of this worker means this process.
  bool IsMeant(uint64_t incarnation) const { return !rules_.own_incarnation_only || incarnation == incarnation_; }
  // One offer a session: D takes its lent blocks back at the first answer.
  bool TakesOffer(Session session) const { return !peers_.contains(session); }
  // D's pool has been offered, and accepted or not.
  void Open(Session session, bool accepted) { peers_[session].accepted = accepted; }
  std::vector<PrefillDecision> OnClosed(Session session);

  // ---- prompts ----
  // kRefused: to be answered with Quiesced. kRepeated: not to be answered at all, because Quiesced would be a false
  // last word. Epochs of a session grow, so that one which has ended is known as repeated too.
  std::pair<Asked, uint64_t> Ask(Session session, uint64_t epoch, SequenceId sequence);  // the second: its tag
  std::optional<PrefillDecision> Plan(SequenceId sequence, std::span<const BlockId> source, int32_t first_block,
                                      int32_t end_block, bool admitted);
  std::optional<PrefillDecision> LayersDone(SequenceId sequence, int32_t layer_end);
  // Nonsense ends the prompt.
  std::optional<PrefillDecision> Reserve(Session session, uint64_t epoch, std::vector<BlockId> target,
                                         int32_t first_missing);
  std::optional<PrefillDecision> Cancel(Session session, uint64_t epoch);
  std::optional<PrefillDecision> Handle(SequenceId sequence, PrefillEvent event);
  // A post has ended; `ok`: every byte is there. Also for one that could not be posted.
  std::optional<PrefillDecision> CopyEnded(uint64_t tag, bool ok);

  const std::map<uint64_t, Prompt>& prompts() const { return prompts_; }  // by tag
  const std::map<Session, Peer>& peers() const { return peers_; }
  std::optional<uint64_t> TagOf(SequenceId sequence) const {
    const auto found = by_sequence_.find(sequence);
    return found == by_sequence_.end() ? std::nullopt : std::optional(found->second);
  }
  const Prompt* Find(uint64_t tag) const;

 private:
  std::optional<uint64_t> FindEpoch(Session session, uint64_t epoch) const;
  std::optional<PrefillDecision> Apply(uint64_t tag, PrefillEvent event);
  bool Take(Prompt& prompt, PrefillEvent event, PrefillDecision& decision);

  PrefillRules rules_;
  uint64_t incarnation_;
  int32_t num_layers_;
  std::map<Session, Peer> peers_;
  std::map<uint64_t, Prompt> prompts_;
  std::map<std::pair<Session, uint64_t>, uint64_t> by_epoch_;
  std::map<SequenceId, uint64_t> by_sequence_;
  uint64_t next_tag_ = 1;
};

}  // namespace baton
