// A child's link to its supervisor: reports progress, hears of members and of draining, and dies with it.
//
// Threading: Report from any thread; callbacks come from the network's thread.
// Errors: when the supervisor is gone the process ends at once (exit code 1): nobody would ever reap or restart it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "app/options.h"
#include "rpc/envelope.h"

namespace baton {

struct ChildLinkEvents {
  std::function<void(const proto::Members&)> on_members;
  std::function<void()> on_drain;
};

class ChildLink {
 public:
  // A process that was started by hand has no supervisor: then every report goes nowhere.
  static absl::StatusOr<std::unique_ptr<ChildLink>> Create(Network& network, const ChildFlags& flags, uint64_t worker,
                                                           ChildLinkEvents events);
  void Report(const std::string& stage, double fraction, const std::string& device = "");
  void ReportLost(const proto::WorkerLost& lost);

 private:
  std::shared_ptr<Session> session_;
};

}  // namespace baton
