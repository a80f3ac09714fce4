// What one sequence has to do with deaths of workers. A worker may die of what it was computing: a sequence that was
// there at two such deaths must not be given a third worker together with others.
//
// A sequence is *exposed* to an incarnation of a worker when that ends, or is left, with the sequence unfinished on it.
// How it ended is known later, when the supervisor has reaped it.
//
// Threading: none of its own; the router's mutex guards it. Limits: as many entries as the sequence has had attempts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/ids.h"

namespace baton {

class DeathRecord {
 public:
  // Deaths after which a sequence runs alone.
  static constexpr int kSuspicious = 2;

  void Expose(WorkerId worker, uint64_t incarnation);
  // That incarnation has ended. True when the sequence was exposed to it and the end was self-inflicted.
  bool OnDeath(WorkerId worker, uint64_t incarnation, bool self_inflicted, const std::string& how);

  // Whether an end is still to be explained.
  bool awaits_cause() const { return !exposures_.empty(); }
  int deaths() const { return static_cast<int>(notes_.size()); }
  bool suspicious() const { return deaths() >= kSuspicious; }
  // "decode-0 was ended by signal 11; decode-1 …"
  std::string Text() const;

 private:
  struct Exposure {
    WorkerId worker;
    uint64_t incarnation;
    bool operator==(const Exposure&) const = default;
  };
  std::vector<Exposure> exposures_;
  std::vector<std::string> notes_;  // of self-inflicted deaths
};

}  // namespace baton
