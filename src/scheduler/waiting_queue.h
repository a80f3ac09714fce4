// Who is admitted next: lower priority value first; within it those that were returned, by arrival; then round robin
// over users, each user's oldest.
//
// Threading: none. Ownership: sequences belong to the scheduler.
// Limits: Push, Front and Pop are O(log priorities) and constant otherwise; Remove searches one user's queue.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/sequence.h"

namespace baton {

class WaitingQueue {
 public:
  // To its place among its user's, by arrival.
  void Push(Sequence* sequence);
  // For who has had its turn already, and lost what it got. Ahead of all that were pushed with its priority, and behind
  // older returned ones.
  void Return(Sequence* sequence);
  Sequence* Front() const;  // null when empty
  void Pop();
  bool Remove(const Sequence* sequence);
  int32_t size() const { return size_; }
  std::vector<const Sequence*> All() const;  // in no particular order

 private:
  struct Level {
    std::deque<Sequence*> returned;  // by arrival
    std::unordered_map<std::string, std::deque<Sequence*>> by_user;
    std::list<std::string> turns;  // users that have something waiting; the front is next
  };

  std::map<int32_t, Level> levels_;  // by priority; none is empty
  int32_t size_ = 0;
};

}  // namespace baton
