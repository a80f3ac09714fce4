#include "frontend/frontend_metrics.h"

#include <vector>

#include "frontend/openai_response.h"

namespace baton {
namespace {

std::vector<double> TokenCountBuckets() {
  std::vector<double> bounds;
  for (double decade = 1; decade < 1e6; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) bounds.push_back(decade * step);
  }
  return bounds;
}

constexpr double kMicro = 1e-6;

}  // namespace

FrontendMetrics::FrontendMetrics(MetricRegistry& registry, const MetricLabels& labels)
    : running(registry.AddGauge("vllm:num_requests_running", "Sequences that have their first token.", labels)),
      waiting(registry.AddGauge("vllm:num_requests_waiting", "Sequences that wait for their first token.", labels)),
      prompt_tokens(
          registry.AddCounter("vllm:prompt_tokens_total", "Prompt tokens of requests that were started.", labels)),
      generation_tokens(registry.AddCounter("vllm:generation_tokens_total", "Generated tokens.", labels)),
      prefix_queries(registry.AddCounter("vllm:prefix_cache_queries_total", "Prompt tokens looked up.", labels)),
      prefix_hits(
          registry.AddCounter("vllm:prefix_cache_hits_total", "Prompt tokens that no worker had to compute.", labels)),
      time_to_first_token(registry.AddHistogram("vllm:time_to_first_token_seconds",
                                                "From a request's arrival to its first token.",
                                                TimeToFirstTokenBuckets(), labels)),
      inter_token_latency(registry.AddHistogram("vllm:inter_token_latency_seconds",
                                                "Gaps between consecutive tokens of one sequence.",
                                                InterTokenLatencyBuckets(), labels)),
      time_per_output_token(registry.AddHistogram("vllm:request_time_per_output_token_seconds",
                                                  "Mean gap between the tokens of a sequence.",
                                                  InterTokenLatencyBuckets(), labels)),
      e2e_latency(registry.AddHistogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.",
                                        RequestLatencyBuckets(), labels)),
      queue_time(registry.AddHistogram("vllm:request_queue_time_seconds", "From arrival until prefill began.",
                                       RequestLatencyBuckets(), labels)),
      prefill_time(registry.AddHistogram("vllm:request_prefill_time_seconds", "From there to the first token.",
                                         RequestLatencyBuckets(), labels)),
      decode_time(registry.AddHistogram("vllm:request_decode_time_seconds", "From the first token to the last.",
                                        RequestLatencyBuckets(), labels)),
      handoff_time(registry.AddHistogram("baton_request_handoff_seconds",
                                         "From the end of prefill until the decode worker could step.",
                                         TimeToFirstTokenBuckets(), labels)),
      handoff_bytes(
          registry.AddCounter("baton_request_handoff_bytes_total", "KV cache bytes that were handed over.", labels)),
      request_prompt_tokens(registry.AddHistogram("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                                                  TokenCountBuckets(), labels)),
      request_generation_tokens(registry.AddHistogram("vllm:request_generation_tokens",
                                                      "Generated tokens of a request.", TokenCountBuckets(), labels)) {
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled, FinishReason::kError}) {
    MetricLabels with_reason = labels;
    with_reason.emplace_back("finished_reason", std::string(FinishReasonText(reason)));
    finished[static_cast<size_t>(reason)] =
        &registry.AddCounter("vllm:request_success_total", "Sequences that ended, by reason.", with_reason);
  }
  finished[static_cast<size_t>(FinishReason::kNone)] = finished[static_cast<size_t>(FinishReason::kError)];
}

void FrontendMetrics::ObserveWaterfall(const Waterfall& waterfall, double decode_seconds) {
  queue_time.Observe(static_cast<double>(waterfall.queue_us) * kMicro);
  prefill_time.Observe(static_cast<double>(waterfall.prefill_us) * kMicro);
  decode_time.Observe(decode_seconds);
  if (waterfall.handoff_path.empty()) return;
  handoff_time.Observe(static_cast<double>(waterfall.handoff_us) * kMicro);
  handoff_bytes.Add(static_cast<double>(waterfall.handoff_bytes));
}

}  // namespace baton
