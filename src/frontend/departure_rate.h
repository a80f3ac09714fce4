// When there will be room: measured from what has left lately, for the Retry-After of a 429.
//
// Who is refused gets a place in a line that is only imagined: each is sent away until its turn would come at the
// measured rate, so that those who come back do so spread out, and not all at once.
//
// Pure: the caller says what time it is. Threading: none of its own; the admission's mutex guards it.
#pragma once

#include <chrono>
#include <deque>

namespace baton {

class DepartureRate {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kWindow{10};
  static constexpr int kSecondsMax = 60;

  void Note(Clock::time_point now, double amount);
  // Of one second over the window; 0: nothing has left.
  double PerSecond(Clock::time_point now);
  // Whole seconds, 1 to kSecondsMax, until room for so much should have come free, after those who were told before.
  int SecondsUntil(Clock::time_point now, double amount);

 private:
  struct Second {
    Clock::time_point begin;
    double amount = 0;
  };
  std::deque<Second> seconds_;
  Clock::time_point promised_;  // the last one's turn
};

}  // namespace baton
