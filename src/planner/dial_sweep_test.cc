// The short form of benchmarks/dial_sweep: virtual time, so the same on every machine.
#include "planner/dial_sweep.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

class DialSweepTest : public testing::TestWithParam<size_t> {};

TEST_P(DialSweepTest, TheDialIsNearTheBestFixedSetting) {
  const Topology topology = EightGpuTopologies().at(GetParam());
  const std::vector<Load> loads = {
      {.name = "closed", .users = 48, .input_tokens = 3000, .output_tokens = 150, .requests = 400},
      {.name = "open", .requests_per_second = 11, .input_tokens = 3000, .output_tokens = 150, .requests = 400}};
  for (const Load& load : loads) {
    double dial = 0;
    for (const DialPolicy& policy : PoliciesFor(topology)) {
      const DialOutcome outcome = RunOne(topology, load, policy, {});
      if (policy.name == "dial") {
        dial = outcome.goodput;
        continue;
      }
      EXPECT_GE(dial, 0.97 * outcome.goodput) << topology.name << ", " << load.name << ": " << policy.name;
    }
    EXPECT_GT(dial, 0) << topology.name << ", " << load.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Topologies, DialSweepTest, testing::Range(size_t{0}, EightGpuTopologies().size()));

}  // namespace
}  // namespace baton
