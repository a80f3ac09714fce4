// The router's view of the cluster as JSON, for GET /cluster, /cluster/decisions and x-baton-explain.
#pragma once

#include <string>
#include <vector>

#include "router/router.h"

namespace baton {

// {"workers":[…],"paths":[…]}
std::string ClusterJson(const std::vector<WorkerSnapshot>& workers);
// {"decisions":[…]}, the newest last.
std::string DecisionsJson(const std::vector<RouteDecision>& decisions);
// The newest decision about one request; "" when there is none.
std::string DecisionJson(const std::vector<RouteDecision>& decisions, const std::string& request);

}  // namespace baton
