#include "rpc/peer_watch.h"

#include <limits>

namespace baton {
namespace {

struct Patience {
  int32_t suspect;
  int32_t lose;
};

constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

Patience PatienceFor(ProcessState state, const PeerWatchOptions& options) {
  switch (state) {
    case ProcessState::kStopped:
      return {options.suspect_stopped, options.lose_stopped};
    case ProcessState::kTraced:
      return {options.suspect_stopped, kNever};  // somebody looks at it
    case ProcessState::kActive:
      return {options.suspect_active, kNever};
    default:
      return {options.suspect_silent, options.lose_silent};
  }
}

// Asleep and not to be seen are the same evidence.
bool SameEvidence(ProcessState a, ProcessState b) {
  const auto silent = [](ProcessState s) { return s == ProcessState::kIdle || s == ProcessState::kUnknown; };
  return a == b || (silent(a) && silent(b));
}

}  // namespace

PeerHealth PeerWatch::Beat(bool heard, const std::function<ProcessState()>& look) {
  if (health_ == PeerHealth::kLost) return health_;
  if (heard) {
    silent_ = same_evidence_ = 0;
    return health_ = PeerHealth::kWell;
  }
  silent_ += 1;
  if (silent_ < options_.look_after) return health_;
  const ProcessState state = look();
  same_evidence_ = SameEvidence(state, state_) ? same_evidence_ + 1 : 1;
  state_ = state;
  const Patience patience = PatienceFor(state, options_);
  if (silent_ >= patience.lose && same_evidence_ > patience.lose - options_.look_after) {
    health_ = PeerHealth::kLost;
  } else if (silent_ >= patience.suspect) {
    health_ = PeerHealth::kSuspected;
  }
  return health_;
}

}  // namespace baton
