#include "router/death_record.h"

#include <algorithm>

namespace baton {

void DeathRecord::Expose(WorkerId worker, uint64_t incarnation) {
  const Exposure exposure{worker, incarnation};
  if (std::find(exposures_.begin(), exposures_.end(), exposure) == exposures_.end()) exposures_.push_back(exposure);
}

bool DeathRecord::OnDeath(WorkerId worker, uint64_t incarnation, bool self_inflicted, const std::string& how) {
  const bool exposed = std::erase(exposures_, Exposure{worker, incarnation}) > 0;
  // Older incarnations have ended too, and nobody will say how.
  std::erase_if(exposures_, [&](const Exposure& e) { return e.worker == worker && e.incarnation < incarnation; });
  if (!exposed || !self_inflicted) return false;
  notes_.push_back(how);
  return true;
}

std::string DeathRecord::Text() const {
  std::string text;
  for (const std::string& note : notes_) text += (text.empty() ? "" : "; ") + note;
  return text;
}

}  // namespace baton
