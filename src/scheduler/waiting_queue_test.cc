#include "scheduler/waiting_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <tuple>

namespace baton {
namespace {

class WaitingQueueTest : public testing::Test {
 protected:
  Sequence* Make(const std::string& user, int32_t priority = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = made_.size();
    sequence->request.user = user;
    sequence->request.priority = priority;
    made_.push_back(std::move(sequence));
    return made_.back().get();
  }
  std::vector<uint64_t> Drain() {
    std::vector<uint64_t> order;
    for (; queue_.Front() != nullptr; queue_.Pop()) order.push_back(queue_.Front()->arrival);
    return order;
  }

  std::vector<std::unique_ptr<Sequence>> made_;
  WaitingQueue queue_;
};

TEST_F(WaitingQueueTest, OneUserIsServedInOrder) {
  for (int i = 0; i < 4; ++i) queue_.Push(Make("a"));
  EXPECT_EQ(queue_.size(), 4);
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{0, 1, 2, 3}));
  EXPECT_EQ(queue_.size(), 0);
}

TEST_F(WaitingQueueTest, UsersTakeTurns) {
  for (const char* user : {"a", "a", "a", "a", "b", "b", "c"}) queue_.Push(Make(user));
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{0, 4, 6, 1, 5, 2, 3}));
}

TEST_F(WaitingQueueTest, PriorityComesBeforeEverything) {
  queue_.Push(Make("a", 5));
  queue_.Push(Make("a", 0));
  queue_.Push(Make("b", -1));
  queue_.Return(Make("c", 5));
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{2, 1, 3, 0}));
}

TEST_F(WaitingQueueTest, ReturnedOnesAreAheadByArrival) {
  Sequence* first = Make("a");
  Sequence* second = Make("b");
  queue_.Push(Make("c"));
  queue_.Return(second);
  queue_.Return(first);
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{0, 1, 2}));
}

TEST_F(WaitingQueueTest, WhoIsPushedAgainIsItsUsersOldestButTakesNobodysTurn) {
  Sequence* parked = Make("a");
  for (const char* user : {"a", "b", "b"}) queue_.Push(Make(user));
  queue_.Push(parked);
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{0, 2, 1, 3}));
}

TEST_F(WaitingQueueTest, RemovesFromAnyPlace) {
  for (const char* user : {"a", "b", "a", "c"}) queue_.Push(Make(user));
  queue_.Return(Make("d"));
  EXPECT_TRUE(queue_.Remove(made_[1].get()));
  EXPECT_FALSE(queue_.Remove(made_[1].get()));
  EXPECT_TRUE(queue_.Remove(made_[4].get()));
  EXPECT_EQ(queue_.size(), 3);
  EXPECT_EQ(Drain(), (std::vector<uint64_t>{0, 3, 2}));
}

// Against a model that searches a flat list: returned ones by arrival, then the user whose last turn is longest ago.
TEST_F(WaitingQueueTest, BehavesLikeTheModel) {
  struct Entry {
    Sequence* sequence;
    bool returned;
  };
  std::mt19937 random(7);
  std::vector<Entry> entries;  // by arrival
  std::map<std::pair<int32_t, std::string>, int> last_turn;
  int clock = 0;
  const auto waits = [&](int32_t priority, const std::string& user) {
    return std::ranges::any_of(entries, [&](const Entry& e) {
      return !e.returned && e.sequence->request.priority == priority && e.sequence->request.user == user;
    });
  };
  const auto rank = [&](const Entry& e) {
    const Request& request = e.sequence->request;
    return std::tuple(request.priority, !e.returned, e.returned ? 0 : last_turn[{request.priority, request.user}],
                      e.sequence->arrival);
  };
  for (int step = 0; step < 100'000; ++step) {
    const uint32_t choice = random() % 100;
    if (choice < 50 && entries.size() < 40) {
      Sequence* sequence = Make(std::string(1, static_cast<char>('a' + random() % 4)), random() % 2);
      const bool returned = random() % 8 == 0;
      const Request& request = sequence->request;
      // A user without anything waiting joins at the end of the turns.
      if (!returned && !waits(request.priority, request.user)) last_turn[{request.priority, request.user}] = ++clock;
      entries.push_back({sequence, returned});
      returned ? queue_.Return(sequence) : queue_.Push(sequence);
    } else if (choice < 60 && !entries.empty()) {
      const size_t index = random() % entries.size();
      ASSERT_TRUE(queue_.Remove(entries[index].sequence));
      entries.erase(entries.begin() + index);
    } else if (!entries.empty()) {
      const auto best = std::ranges::min_element(entries, {}, rank);
      ASSERT_EQ(queue_.Front(), best->sequence) << "step " << step;
      const Request& request = best->sequence->request;
      if (!best->returned) last_turn[{request.priority, request.user}] = ++clock;
      entries.erase(best);
      queue_.Pop();
    }
    ASSERT_EQ(queue_.size(), static_cast<int>(entries.size()));
    ASSERT_EQ(queue_.Front() == nullptr, entries.empty());
  }
}

}  // namespace
}  // namespace baton
