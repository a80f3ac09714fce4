// From the records of requests to figures, and from figures to a table or JSON. INTERFACE's definitions:
//
//   TTFT   from sending the request to its first content
//   ITL    every gap between consecutive tokens, of all requests together
//   TPOT   (last − first token) / (tokens − 1) of each request
//   output token throughput   all output tokens / wall time; throughput per user   1 / mean TPOT
//   goodput   requests a second that meet the targets of TTFT and of their own TPOT
//
// Threading: free functions; any thread. Ownership: values. Errors: none; distributions of nothing have count 0.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/load_generator.h"
#include "bench/workload.h"

namespace baton {

inline constexpr std::array<double, 11> kPercentiles = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};

struct Distribution {
  int64_t count = 0;
  double mean = 0, min = 0, max = 0;
  std::array<double, kPercentiles.size()> percentiles{};  // by linear interpolation between neighbours
  double p50() const { return percentiles[4]; }
  double p90() const { return percentiles[6]; }
  double p99() const { return percentiles[8]; }
};

Distribution Summarize(std::vector<double> samples);

struct Targets {
  double ttft_ms = 1000;
  double itl_ms = 40;  // of a request's mean, its TPOT
};

struct Figures {
  int64_t succeeded = 0;
  int64_t failed = 0;
  std::map<std::string, int64_t> errors;  // kind → requests
  int64_t prompt_tokens = 0;              // of requests that succeeded, as is all that follows
  int64_t output_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t pieces = 0;  // of content; fewer than output tokens where the server sent some together
  double seconds = 0;
  Distribution ttft_ms, itl_ms, tpot_ms, e2e_ms;
  Distribution send_lag_ms;  // open loop: how late the client itself was
  double output_tokens_per_second = 0;
  double prompt_tokens_per_second = 0;
  double requests_per_second = 0;
  double tokens_per_second_per_user = 0;
  int64_t good_requests = 0;
  double goodput_per_second = 0;
};

Figures ComputeFigures(const LoadResult& result, const Targets& targets);

// What stands around the figures.
struct ReportContext {
  std::string url;
  std::string model;
  std::string started_at;    // ISO 8601, UTC
  std::string version_json;  // the server's /version and /cluster, or ""
  std::string cluster_json;
  std::string prompt_source;        // where token ids came from
  bool prefix_cache_reset = false;  // before the run
  double client_cpu_seconds = 0;    // of this program, in the measured part
  double client_wait_seconds = 0;   // ready to run, but kept waiting for a processor
  Workload workload;
  Targets targets;
};

// Now, as ISO 8601 in UTC.
std::string NowAsText();

std::string FormatTable(const ReportContext& context, const Figures& figures);
// One object, with a line end.
std::string FormatJson(const ReportContext& context, const Figures& figures);

}  // namespace baton
