// The same figures for programs.
#include <boost/json.hpp>

#include "bench/report.h"

namespace baton {
namespace {

namespace json = boost::json;

json::object ToJson(const Distribution& distribution) {
  json::object out{{"count", distribution.count}};
  if (distribution.count == 0) return out;
  out["mean"] = distribution.mean;
  out["p50"] = distribution.p50();
  out["p90"] = distribution.p90();
  out["p99"] = distribution.p99();
  out["min"] = distribution.min;
  out["max"] = distribution.max;
  json::object percentiles;
  for (size_t i = 0; i < kPercentiles.size(); ++i) percentiles[Cat(kPercentiles[i])] = distribution.percentiles[i];
  out["percentiles"] = std::move(percentiles);
  return out;
}

json::object Settings(const ReportContext& context) {
  const Workload& load = context.workload;
  const bool open = load.requests_per_second > 0;
  return {{"url", context.url},
          {"model", context.model},
          {"loop", open ? "open" : "closed"},
          {"concurrency", open ? json::value(nullptr) : json::value(load.concurrency)},
          {"request_rate", open ? json::value(load.requests_per_second) : json::value(nullptr)},
          {"input_tokens", load.input_tokens},
          {"output_tokens", load.output_tokens},
          {"requests", load.requests},
          {"warmup", load.warmup},
          {"shared_prefix_tokens", load.shared_prefix_tokens},
          {"text_prompts", load.text_prompts},
          {"seed", load.seed},
          {"ttft_target_ms", context.targets.ttft_ms},
          {"itl_target_ms", context.targets.itl_ms},
          {"prompt_source", context.prompt_source},
          {"prefix_cache_reset", context.prefix_cache_reset}};
}

// What the server said, or null.
json::value Foreign(const std::string& text) {
  boost::system::error_code code;
  json::value value = json::parse(text, code);
  return code ? json::value(nullptr) : value;
}

}  // namespace

std::string FormatJson(const ReportContext& context, const Figures& figures) {
  json::object errors;
  for (const auto& [kind, count] : figures.errors) errors[kind] = count;
  const json::object out{
      {"tool", "baton bench serve"},
      {"schema", 1},
      {"started_at", context.started_at},
      {"settings", Settings(context)},
      {"server", {{"version", Foreign(context.version_json)}, {"cluster", Foreign(context.cluster_json)}}},
      {"duration_s", figures.seconds},
      {"client_cpu_s", context.client_cpu_seconds},
      {"client_wait_s", context.client_wait_seconds},
      {"succeeded", figures.succeeded},
      {"failed", figures.failed},
      {"errors", std::move(errors)},
      {"prompt_tokens", figures.prompt_tokens},
      {"output_tokens", figures.output_tokens},
      {"cached_prompt_tokens", figures.cached_tokens},
      {"content_pieces", figures.pieces},
      {"output_tokens_per_second", figures.output_tokens_per_second},
      {"output_tokens_per_second_per_user", figures.tokens_per_second_per_user},
      {"prompt_tokens_per_second", figures.prompt_tokens_per_second},
      {"requests_per_second", figures.requests_per_second},
      {"good_requests", figures.good_requests},
      {"goodput_requests_per_second", figures.goodput_per_second},
      {"ttft_ms", ToJson(figures.ttft_ms)},
      {"itl_ms", ToJson(figures.itl_ms)},
      {"tpot_ms", ToJson(figures.tpot_ms)},
      {"e2e_ms", ToJson(figures.e2e_ms)},
      {"send_lag_ms", ToJson(figures.send_lag_ms)}};
  return json::serialize(out) + "\n";
}

}  // namespace baton
