// What the front end knows about its requests, under vLLM's names.
//
// Threading: any thread. Ownership: the registry owns the metrics and must outlive this.
#pragma once

#include <cstdint>
#include <string>

#include "base/metrics.h"
#include "core/request.h"

namespace baton {

struct FrontendMetrics {
  FrontendMetrics(MetricRegistry& registry, const MetricLabels& labels);

  Counter& Finished(FinishReason finish) { return *finished[static_cast<size_t>(finish)]; }
  // The request's times as its workers saw them.
  void ObserveWaterfall(const Waterfall& waterfall, double decode_seconds);

  Gauge& running;  // sequences
  Gauge& waiting;
  Counter& prompt_tokens;
  Counter& generation_tokens;
  Counter& prefix_queries;  // tokens
  Counter& prefix_hits;
  Histogram& time_to_first_token;
  Histogram& inter_token_latency;
  Histogram& time_per_output_token;  // of a request: the mean gap between its tokens
  Histogram& e2e_latency;
  Histogram& queue_time;
  Histogram& prefill_time;
  Histogram& decode_time;
  Histogram& handoff_time;
  Counter& handoff_bytes;
  Histogram& request_prompt_tokens;
  Histogram& request_generation_tokens;
  Counter* finished[5];  // by FinishReason
};

}  // namespace baton
