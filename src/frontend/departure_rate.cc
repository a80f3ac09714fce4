#include "frontend/departure_rate.h"

#include <algorithm>
#include <cmath>

namespace baton {

using std::chrono::duration;
using std::chrono::seconds;

void DepartureRate::Note(Clock::time_point now, double amount) {
  if (seconds_.empty() || now - seconds_.back().begin >= seconds(1)) seconds_.push_back({now});
  seconds_.back().amount += amount;
  while (now - seconds_.front().begin > kWindow) seconds_.pop_front();
}

double DepartureRate::PerSecond(Clock::time_point now) {
  while (!seconds_.empty() && now - seconds_.front().begin > kWindow) seconds_.pop_front();
  if (seconds_.empty()) return 0;
  double total = 0;
  for (const Second& second : seconds_) total += second.amount;
  return total / std::max(1.0, duration<double>(now - seconds_.front().begin).count());
}

int DepartureRate::SecondsUntil(Clock::time_point now, double amount) {
  const double rate = PerSecond(now);
  // Nothing has left for a whole window: the next departure may take as long again.
  const double wait = rate > 0 ? amount / rate : duration<double>(kWindow).count();
  const auto turn = std::max(now, promised_) +
                    std::chrono::duration_cast<Clock::duration>(duration<double>(std::min<double>(wait, kSecondsMax)));
  promised_ = std::min(turn, now + seconds(kSecondsMax));
  return std::clamp(static_cast<int>(std::ceil(duration<double>(promised_ - now).count())), 1, kSecondsMax);
}

}  // namespace baton
