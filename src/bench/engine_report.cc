// The table for people and the JSON for programs.
#include <boost/json.hpp>
#include <cstdio>

#include "bench/engine_timing.h"

namespace baton {
namespace {

namespace json = boost::json;

constexpr const char* kFamilyNames[kKernelFamilies] = {"gemm", "attention", "elementwise", "sampling"};

template <typename... Args>
std::string Format(const char* format, Args... args) {
  char line[512];
  std::snprintf(line, sizeof(line), format, args...);
  return line;
}

json::object ToJson(const EngineBenchRow& row) {
  json::object families;
  for (int i = 0; i < kKernelFamilies; ++i) families[kFamilyNames[i]] = row.profile[i];
  families["gaps"] = row.gaps_us();
  return {{"name", row.name},
          {"decode_rows", row.step.decode_rows},
          {"decode_context", row.step.decode_context},
          {"prompt_tokens", row.step.prompt_tokens},
          {"prompt_start", row.step.prompt_start},
          {"median_us", row.median_us},
          {"best_us", row.best_us},
          {"floor_us", row.floor_us},
          {"share", row.floor_us / row.median_us},
          {"runs", row.runs},
          {"idle_between_us", row.idle_us},
          {"families_us", std::move(families)}};
}

}  // namespace

std::string EngineTableHeader(const EngineBenchContext& context) {
  const Ceilings& most = context.ceilings;
  std::string out = Cat("\n  ", context.model, " on ", context.device, "\n");
  out += Format("  ceilings here: reads %.0f GB/s, products %.1f TOP/s, attention %.1f TOP/s; ready after %.1f s\n\n",
                most.read_bytes_per_second / 1e9, most.gemm_ops_per_second / 1e12, most.attention_ops_per_second / 1e12,
                context.load_seconds);
  out += Format("  %-24s %9s %9s %6s | %9s %9s %9s %9s %9s | %7s\n", "milliseconds", "median", "floor", "share", "GEMM",
                "attention", "el.-wise", "sampling", "gaps", "idle us");
  return out;
}

std::string EngineTableRow(const EngineBenchRow& row) {
  return Format("  %-24s %9.3f %9.3f %5.1f%% | %9.3f %9.3f %9.3f %9.3f %9.3f | %7.1f\n", row.name.c_str(),
                row.median_us / 1e3, row.floor_us / 1e3, 100 * row.floor_us / row.median_us, row.profile[0] / 1e3,
                row.profile[1] / 1e3, row.profile[2] / 1e3, row.profile[3] / 1e3, row.gaps_us() / 1e3, row.idle_us);
}

std::string EngineJson(const EngineBenchContext& context, const std::vector<EngineBenchRow>& rows) {
  json::array steps;
  for (const EngineBenchRow& row : rows) steps.push_back(ToJson(row));
  const json::object out{{"tool", "baton bench engine"},
                         {"schema", 1},
                         {"started_at", context.started_at},
                         {"version", context.version},
                         {"model", context.model},
                         {"device", context.device},
                         {"ready_s", context.load_seconds},
                         {"ceilings",
                          {{"read_bytes_per_second", context.ceilings.read_bytes_per_second},
                           {"gemm_ops_per_second", context.ceilings.gemm_ops_per_second},
                           {"attention_ops_per_second", context.ceilings.attention_ops_per_second}}},
                         {"steps", std::move(steps)}};
  return json::serialize(out) + "\n";
}

}  // namespace baton
