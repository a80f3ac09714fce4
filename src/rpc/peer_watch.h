// Whether the other side of a session is well, suspected or lost: from its heart-beats, and from what its process is
// doing. Pure: no clock, no I/O.
//
// Suspected is not lost. A suspected peer gets no new work and what it has is moved, which costs a little when it was
// only slow; it comes back with its next byte. A lost peer is killed, so that must not happen to one that is only slow:
// a process that is seen at work is never lost, however long it is silent.
//
// Time is counted in the observer's own beats. An observer that was itself kept from running has missed no more than
// one of them, however long that took.
//
// Threading: one thread.
#pragma once

#include <cstdint>
#include <functional>

#include "base/process_state.h"

namespace baton {

enum class PeerHealth : uint8_t { kWell, kSuspected, kLost };

// In beats during which nothing was heard.
struct PeerWatchOptions {
  int32_t interval_ms = 100;  // of a beat
  int32_t look_after = 2;     // from then on the process is looked at
  int32_t suspect_stopped = 2;
  int32_t suspect_silent = 4;   // asleep, or not to be seen
  int32_t suspect_active = 20;  // at work, or kept from it by others
  int32_t lose_stopped = 10;    // in a row
  int32_t lose_silent = 50;     // in a row asleep or not to be seen
};

// For sessions whose other side nobody waits for. Stopped: lost after two seconds. Asleep, and answering nothing: after
// ten.
inline constexpr PeerWatchOptions kUnhurriedWatch{.interval_ms = 500,
                                                  .look_after = 1,
                                                  .suspect_stopped = 1,
                                                  .suspect_silent = 2,
                                                  .suspect_active = 4,
                                                  .lose_stopped = 4,
                                                  .lose_silent = 20};

class PeerWatch {
 public:
  explicit PeerWatch(const PeerWatchOptions& options) : options_(options) {}
  // One beat: whether anything was heard since the last; `look` is asked when that is not enough to decide.
  PeerHealth Beat(bool heard, const std::function<ProcessState()>& look);

  PeerHealth health() const { return health_; }
  int64_t silent_ms() const { return int64_t{silent_} * options_.interval_ms; }
  ProcessState state() const { return state_; }  // at the last look

 private:
  const PeerWatchOptions options_;
  PeerHealth health_ = PeerHealth::kWell;
  ProcessState state_ = ProcessState::kUnknown;
  int32_t silent_ = 0;         // beats
  int32_t same_evidence_ = 0;  // beats in a row with evidence of one kind
};

}  // namespace baton
