#include "bench/report.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>

namespace baton {
namespace {

constexpr double kNanosecondsPerMillisecond = 1e6;
constexpr double kNanosecondsPerSecond = 1e9;

double Milliseconds(int64_t from_ns, int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) / kNanosecondsPerMillisecond;
}

double Ratio(double amount, double of) { return of > 0 ? amount / of : 0; }

// Of ascending samples, as numpy's default.
double Percentile(const std::vector<double>& sorted, double percent) {
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], rank - static_cast<double>(below));
}

struct Samples {
  std::vector<double> ttft, itl, tpot, e2e, lag;
};

void AddRequest(const RequestRecord& record, const Targets& targets, Samples& samples, Figures& figures) {
  if (!record.error.empty()) {
    ++figures.failed;
    ++figures.errors[record.error];
    return;
  }
  ++figures.succeeded;
  figures.prompt_tokens += record.prompt_tokens;
  figures.output_tokens += record.output_tokens;
  figures.cached_tokens += record.cached_tokens;
  figures.pieces += static_cast<int64_t>(record.token_ns.size());
  const int64_t first = record.token_ns.front();
  const int64_t last = record.token_ns.back();
  const double ttft = Milliseconds(record.sent_ns, first);
  const int64_t gaps = record.output_tokens - 1;
  const double tpot = gaps > 0 ? Milliseconds(first, last) / static_cast<double>(gaps) : 0;
  samples.ttft.push_back(ttft);
  if (gaps > 0) samples.tpot.push_back(tpot);
  for (size_t i = 1; i < record.token_ns.size(); ++i) {
    samples.itl.push_back(Milliseconds(record.token_ns[i - 1], record.token_ns[i]));
  }
  samples.e2e.push_back(Milliseconds(record.sent_ns, record.end_ns));
  samples.lag.push_back(Milliseconds(record.due_ns, record.sent_ns));
  if (ttft <= targets.ttft_ms && tpot <= targets.itl_ms) ++figures.good_requests;
}

}  // namespace

Distribution Summarize(std::vector<double> samples) {
  Distribution out;
  out.count = static_cast<int64_t>(samples.size());
  if (samples.empty()) return out;
  std::sort(samples.begin(), samples.end());
  out.mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  out.min = samples.front();
  out.max = samples.back();
  for (size_t i = 0; i < kPercentiles.size(); ++i) out.percentiles[i] = Percentile(samples, kPercentiles[i]);
  return out;
}

Figures ComputeFigures(const LoadResult& result, const Targets& targets) {
  Figures figures;
  Samples samples;
  for (const RequestRecord& record : result.records) AddRequest(record, targets, samples, figures);
  figures.seconds = static_cast<double>(result.end_ns - result.start_ns) / kNanosecondsPerSecond;
  figures.ttft_ms = Summarize(std::move(samples.ttft));
  figures.itl_ms = Summarize(std::move(samples.itl));
  figures.tpot_ms = Summarize(std::move(samples.tpot));
  figures.e2e_ms = Summarize(std::move(samples.e2e));
  figures.send_lag_ms = Summarize(std::move(samples.lag));
  figures.output_tokens_per_second = Ratio(static_cast<double>(figures.output_tokens), figures.seconds);
  figures.prompt_tokens_per_second = Ratio(static_cast<double>(figures.prompt_tokens), figures.seconds);
  figures.requests_per_second = Ratio(static_cast<double>(figures.succeeded), figures.seconds);
  figures.tokens_per_second_per_user = Ratio(1000, figures.tpot_ms.mean);
  figures.goodput_per_second = Ratio(static_cast<double>(figures.good_requests), figures.seconds);
  return figures;
}

std::string NowAsText() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace baton
