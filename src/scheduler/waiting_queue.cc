#include "scheduler/waiting_queue.h"

#include <algorithm>

namespace baton {
namespace {

void InsertByArrival(std::deque<Sequence*>& queue, Sequence* sequence) {
  queue.insert(std::ranges::upper_bound(queue, sequence->arrival, {}, &Sequence::arrival), sequence);
}

}  // namespace

void WaitingQueue::Push(Sequence* sequence) {
  Level& level = levels_[sequence->request.priority];
  std::deque<Sequence*>& queue = level.by_user[sequence->request.user];
  if (queue.empty()) level.turns.push_back(sequence->request.user);
  InsertByArrival(queue, sequence);
  ++size_;
}

void WaitingQueue::Return(Sequence* sequence) {
  InsertByArrival(levels_[sequence->request.priority].returned, sequence);
  ++size_;
}

Sequence* WaitingQueue::Front() const {
  if (levels_.empty()) return nullptr;
  const Level& level = levels_.begin()->second;
  if (!level.returned.empty()) return level.returned.front();
  return level.by_user.at(level.turns.front()).front();
}

void WaitingQueue::Pop() {
  Level& level = levels_.begin()->second;
  if (!level.returned.empty()) {
    level.returned.pop_front();
  } else {
    const auto user = level.by_user.find(level.turns.front());
    user->second.pop_front();
    if (user->second.empty()) {
      level.by_user.erase(user);
      level.turns.pop_front();
    } else {
      level.turns.splice(level.turns.end(), level.turns, level.turns.begin());
    }
  }
  if (level.returned.empty() && level.turns.empty()) levels_.erase(levels_.begin());
  --size_;
}

bool WaitingQueue::Remove(const Sequence* sequence) {
  const auto found = levels_.find(sequence->request.priority);
  if (found == levels_.end()) return false;
  Level& level = found->second;
  if (std::erase(level.returned, sequence) == 0) {
    const auto user = level.by_user.find(sequence->request.user);
    if (user == level.by_user.end() || std::erase(user->second, sequence) == 0) return false;
    if (user->second.empty()) {
      level.turns.remove(user->first);
      level.by_user.erase(user);
    }
  }
  if (level.returned.empty() && level.turns.empty()) levels_.erase(found);
  --size_;
  return true;
}

std::vector<const Sequence*> WaitingQueue::All() const {
  std::vector<const Sequence*> all;
  for (const auto& [priority, level] : levels_) {
    all.insert(all.end(), level.returned.begin(), level.returned.end());
    for (const auto& [user, queue] : level.by_user) all.insert(all.end(), queue.begin(), queue.end());
  }
  return all;
}

}  // namespace baton
