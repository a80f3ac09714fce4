// Goodput of the dial beside its rivals, on eight simulated GPUs in virtual time: see src/planner/dial_sweep.h.
//
//   dial_sweep [--quick] [--requests N] [--topology TEXT] [--load TEXT] > FILE.json     (the table goes to stderr)
#include "planner/dial_sweep.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace baton {
namespace {

std::vector<Load> Loads(int32_t requests, bool quick) {
  std::vector<Load> loads;
  const auto closed = [&](int32_t users, int32_t input, int32_t output) {
    loads.push_back({.name = Cat(users, " users, ", input, " in, ", output, " out"),
                     .users = users,
                     .input_tokens = input,
                     .output_tokens = output,
                     .requests = std::max(requests, 8 * users)});
  };
  const auto open = [&](double rate, int32_t input, int32_t output) {
    loads.push_back({.name = Cat(rate, " requests/s, ", input, " in, ", output, " out"),
                     .requests_per_second = rate,
                     .input_tokens = input,
                     .output_tokens = output,
                     .requests = requests});
  };
  for (const int32_t users : {16, 32, 48, 64, 96}) {
    if (!quick || users == 48) closed(users, 3000, 150);
  }
  for (const double rate : {4.0, 8.0, 11.0, 13.0, 15.0, 17.0, 19.0}) {
    if (!quick || rate == 13.0) open(rate, 3000, 150);
  }
  for (const double rate : {10.0, 20.0, 30.0, 40.0, 50.0}) {
    if (!quick) open(rate, 500, 250);
  }
  return loads;
}

void PrintJson(const std::vector<DialOutcome>& outcomes, const LatencyTargets& targets) {
  std::printf("{\"ttft_target_ms\": %g, \"itl_target_ms\": %g, \"outcomes\": [\n", targets.ttft_ms, targets.itl_ms);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const DialOutcome& o = outcomes[i];
    std::printf(
        "  {\"topology\": \"%s\", \"load\": \"%s\", \"policy\": \"%s\", \"goodput\": %.3f, \"output_tokens_per_s\": "
        "%.0f, \"ttft_ms_mean\": %.0f, \"ttft_ms_p99\": %.0f, \"tpot_ms_mean\": %.1f, \"tpot_ms_p99\": %.1f, "
        "\"gap_ms_p99\": %.0f, \"prefilled_remotely\": %.2f}%s\n",
        o.topology.c_str(), o.load.c_str(), o.policy.c_str(), o.goodput, o.output_tokens_per_second, o.ttft_ms_mean,
        o.ttft_ms_p99, o.tpot_ms_mean, o.tpot_ms_p99, o.gap_ms_p99, o.prefilled_remotely,
        i + 1 < outcomes.size() ? "," : "");
  }
  std::printf("]}\n");
}

int Main(int argc, char** argv) {
  bool quick = false;
  int32_t requests = 600;
  std::string only_topology, only_load;
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (std::strcmp(argv[i], "--quick") == 0)
      quick = true;
    else if (std::strcmp(argv[i], "--requests") == 0 && more)
      requests = std::max(20, std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--topology") == 0 && more)
      only_topology = argv[++i];
    else if (std::strcmp(argv[i], "--load") == 0 && more)
      only_load = argv[++i];
    else {
      std::fprintf(stderr, "usage: dial_sweep [--quick] [--requests N] [--topology TEXT] [--load TEXT]\n");
      return 2;
    }
  }
  const LatencyTargets targets;
  std::vector<DialOutcome> all;
  double worst = 1;
  for (const Load& load : Loads(requests, quick)) {
    if (load.name.find(only_load) == std::string::npos) continue;
    for (const Topology& topology : EightGpuTopologies()) {
      if (topology.name.find(only_topology) == std::string::npos) continue;
      double dial = 0, best = 0;
      std::string best_name;
      for (const DialPolicy& policy : PoliciesFor(topology)) {
        const DialOutcome& o = all.emplace_back(RunOne(topology, load, policy, targets));
        if (policy.name == "dial")
          dial = o.goodput;
        else if (o.goodput > best)
          best = o.goodput, best_name = policy.name;
        std::fprintf(stderr,
                     "%-34s %-16s %-22s %7.2f good/s %6.0f tok/s  TTFT %5.0f p99 %6.0f  TPOT %5.1f p99 %5.1f gap p99 "
                     "%4.0f remote %.2f\n",
                     load.name.c_str(), topology.name.c_str(), policy.name.c_str(), o.goodput,
                     o.output_tokens_per_second, o.ttft_ms_mean, o.ttft_ms_p99, o.tpot_ms_mean, o.tpot_ms_p99,
                     o.gap_ms_p99, o.prefilled_remotely);
      }
      const double share = best > 0 ? dial / best : 1;
      worst = std::min(worst, share);
      std::fprintf(stderr, "%-34s %-16s => %.3f of the best (%s)\n", load.name.c_str(), topology.name.c_str(), share,
                   best_name.c_str());
    }
  }
  PrintJson(all, targets);
  std::fprintf(stderr, "worst: %.3f of the best rival\n", worst);
  return worst >= 0.97 ? 0 : 1;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return baton::Main(argc, argv); }
