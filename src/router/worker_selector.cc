#include "router/worker_selector.h"

#include <algorithm>
#include <tuple>

namespace baton {
namespace {

// Until a worker has reported rates, all are taken to be alike; only ratios matter for the choice.
constexpr double kDefaultPrefillTokensPerSecond = 1000;
constexpr double kDefaultDecodeStepMs = 20;
constexpr double kDefaultPathGigabytesPerSecond = 2;
// Two messages and the admission on D.
constexpr double kHandoffFixedMs = 0.5;
// Layer groups are pushed while the next ones are computed: about one in four is left when the last layer ends.
constexpr double kExposedTransferShare = 0.25;
// A sequence more on D lengthens each step a little; decode is bound by memory, so not in proportion.
constexpr double kStepGrowthPerSequence = 0.02;
// Waiting for KV memory costs about as long as a typical answer takes to leave.
constexpr double kPressureMs = 1000;

double PrefillMs(const WorkerView& worker, int64_t tokens) {
  const double rate =
      worker.prefill_tokens_per_second > 0 ? worker.prefill_tokens_per_second : kDefaultPrefillTokensPerSecond;
  return 1e3 * static_cast<double>(tokens) / rate;
}

bool CanDecode(const WorkerView& worker) { return worker.role != WorkerRole::kPrefill; }
bool CanPrefillForOthers(const WorkerView& worker) { return worker.role == WorkerRole::kPrefill; }

double GigabytesPerSecond(const SelectionInput& input, WorkerId prefill, WorkerId decode) {
  for (const PathView& path : input.paths) {
    if (path.prefill == prefill && path.decode == decode) {
      if (!path.usable) return -1;
      if (path.gigabytes_per_second > 0) return path.gigabytes_per_second;
    }
  }
  return kDefaultPathGigabytesPerSecond;
}

Selection DecodeTerms(const SelectionInput& input, const WorkerView& decode) {
  const double step_ms = decode.decode_step_ms > 0 ? decode.decode_step_ms : kDefaultDecodeStepMs;
  const int64_t needed = input.prompt_tokens - decode.cached_tokens + std::min<int64_t>(input.max_tokens, 256);
  Selection selection{.decode = decode.id};
  selection.decode_load_ms =
      step_ms * kStepGrowthPerSequence * static_cast<double>(input.max_tokens) * decode.sequences;
  selection.pressure_ms = decode.free_kv_tokens < needed ? kPressureMs : 0;
  return selection;
}

Selection Total(Selection selection) {
  selection.cost_ms = selection.queue_ms + selection.prefill_ms + selection.transfer_ms + selection.decode_load_ms +
                      selection.harm_ms + selection.pressure_ms;
  return selection;
}

Selection Local(const SelectionInput& input, const WorkerView& decode) {
  Selection selection = DecodeTerms(input, decode);
  selection.queue_ms = PrefillMs(decode, decode.queued_prefill_tokens);
  selection.prefill_ms = PrefillMs(decode, input.prompt_tokens - decode.cached_tokens);
  selection.harm_ms = selection.prefill_ms * decode.sequences;
  return Total(selection);
}

std::optional<Selection> Remote(const SelectionInput& input, const WorkerView& decode, const WorkerView& prefill) {
  const double rate = GigabytesPerSecond(input, prefill.id, decode.id);
  if (rate < 0) return std::nullopt;
  Selection selection = DecodeTerms(input, decode);
  selection.prefill = prefill.id;
  selection.queue_ms = PrefillMs(prefill, prefill.queued_prefill_tokens);
  selection.prefill_ms = PrefillMs(prefill, input.prompt_tokens - prefill.cached_tokens);
  const double bytes = static_cast<double>((input.prompt_tokens - decode.cached_tokens) * decode.kv_bytes_per_token);
  selection.transfer_ms = kHandoffFixedMs + kExposedTransferShare * bytes / (rate * 1e6);
  return Total(selection);
}

}  // namespace

std::vector<Selection> RankCandidates(const SelectionInput& input) {
  std::vector<Selection> candidates;
  for (const WorkerView& decode : input.workers) {
    if (!CanDecode(decode)) continue;
    bool has_remote = false;
    for (const WorkerView& prefill : input.workers) {
      if (!CanPrefillForOthers(prefill)) continue;
      if (const auto remote = Remote(input, decode, prefill)) {
        candidates.push_back(*remote);
        has_remote = true;
      }
    }
    const bool short_enough = input.prompt_tokens - decode.cached_tokens <= input.max_local_prefill_tokens;
    if (decode.role == WorkerRole::kHybrid || short_enough || !has_remote) candidates.push_back(Local(input, decode));
  }
  std::sort(candidates.begin(), candidates.end(), [](const Selection& a, const Selection& b) {
    return std::tuple(a.cost_ms, a.decode, a.prefill) < std::tuple(b.cost_ms, b.decode, b.prefill);
  });
  return candidates;
}

std::optional<Selection> SelectWorkers(const SelectionInput& input) {
  const std::vector<Selection> candidates = RankCandidates(input);
  if (candidates.empty()) return std::nullopt;
  return candidates.front();
}

}  // namespace baton
