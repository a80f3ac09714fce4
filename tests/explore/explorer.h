// Searches what can be reached in a World or a SharedPoolWorld, and says how a rule was broken.
//
// Explore: breadth first, each state once (by a 128-bit hash), so a trace is a shortest one. When everything has been
// seen, it checks that from each state a good end is reachable by fair events alone: nobody waits for ever.
// Wander: seeded random walks, for sizes that cannot be searched; each goes on with fair events until nothing is left.
// A failing walk is shortened before it is told.
#pragma once

#include <cstdint>
#include <string>

#include "handoff_world.h"
#include "shared_pool_world.h"

namespace baton {

struct Exploration {
  std::string error;   // empty: every rule held
  std::string trace;   // a line for each event
  int64_t states = 0;  // different ones; 0 for walks, which do not count them
  int64_t transitions = 0;
  int32_t depth = 0;  // events of the longest shortest path
  double seconds = 0;
  bool complete = false;  // nothing was left out for states_max
  std::string Text() const;
};

Exploration Explore(const WorldOptions& options, int64_t states_max);
Exploration Explore(const SharedPoolOptions& options, int64_t states_max);
Exploration Wander(const WorldOptions& options, uint64_t seed, int32_t walks, int32_t events_max);
Exploration Wander(const SharedPoolOptions& options, uint64_t seed, int32_t walks, int32_t events_max);

}  // namespace baton
