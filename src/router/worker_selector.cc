#include "router/worker_selector.h"

#include <algorithm>
#include <limits>
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
// Waiting for KV memory costs about as long as a typical answer takes to leave.
constexpr double kPressureMs = 1000;
// Nobody knows how long an answer gets; limits are often far above it.
constexpr int64_t kExpectedTokensMax = 256;
// Requests that come next wait for what this one computes: half of it, on average. So a prefix that somebody is
// computing is worth waiting for, even where another worker would have it as soon.
constexpr double kNextRequestsShare = 0.5;
// A request that misses its target is lost for goodput, and worth many milliseconds of others.
constexpr double kLatePrice = 20;
// Steps that a scheduler lets pass before it serves a starved prefill.
constexpr double kStarvedSteps = 32;

// A worker's part of the costs of its pairs.
struct Terms {
  const WorkerView* worker = nullptr;
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_load_ms = 0;
  double harm_ms = 0;
  double late_ms = 0;
  double pressure_ms = 0;
  double itl_ms = 0;
  bool has_remote = false;  // some prefill worker has a path to it
};

struct Candidate {
  double cost_ms = 0;
  const Terms* decode = nullptr;
  const Terms* prefill = nullptr;  // null: on the decode worker
  double transfer_ms = 0;
};

StepTimeTable DefaultTimes(const WorkerView& worker) {
  return StepTimeTable::FromRates(
      worker.prefill_tokens_per_second > 0 ? worker.prefill_tokens_per_second : kDefaultPrefillTokensPerSecond,
      1e3 * (worker.decode_step_ms > 0 ? worker.decode_step_ms : kDefaultDecodeStepMs));
}

// Calls `use` with the worker's step times, or with what stands in for them.
template <typename Use>
auto WithTimes(const WorkerView& worker, Use use) {
  return worker.step_times.empty() ? use(DefaultTimes(worker)) : use(worker.step_times);
}

double PrefillMs(const StepTimeTable& times, const WorkerView& worker, int64_t tokens, int64_t cached) {
  return times.PrefillUs(tokens, cached, worker.prefill_chunk_tokens) / 1e3;
}

double LateMs(const SelectionRequest& request, const Terms& terms) {
  return kLatePrice * std::max(0.0, terms.queue_ms + terms.prefill_ms - kTtftShare * request.targets.ttft_ms);
}

// What it costs to decode on this worker, whoever prefills.
void AddDecodeTerms(const SelectionRequest& request, const StepTimeTable& times, Terms& terms) {
  const WorkerView& worker = *terms.worker;
  const int64_t expected = std::min(request.max_tokens, kExpectedTokensMax);
  const double alone_ms = times.StepUs({.decode_rows = 1, .decode_context = request.prompt_tokens}) / 1e3;
  const double with_all_ms = times.StepUs({.decode_rows = worker.sequences + 1,
                                           .decode_context = worker.context_tokens + request.prompt_tokens}) /
                             1e3;
  terms.decode_load_ms = std::max(0.0, with_all_ms - alone_ms) * static_cast<double>(expected);
  // Beyond the target every sequence on D misses it.
  terms.itl_ms = std::max(0.0, with_all_ms - request.targets.itl_ms) * static_cast<double>(expected) *
                 static_cast<double>(worker.sequences);
  const int64_t needed = request.prompt_tokens - worker.cached_tokens + expected;
  terms.pressure_ms = worker.free_kv_tokens < needed ? kPressureMs : 0;
}

// How a step of D carries prompt tokens beside its rows.
struct Riding {
  StepShape decode;    // without them
  int64_t budget = 0;  // most tokens of one step
  double idle_ms = 0;  // of steps in between that carry none
};

Riding RidingOn(const SelectionRequest& request, const StepTimeTable& times, const WorkerView& worker, int64_t tokens) {
  // Somebody's tokens may come along in the meantime even where nobody decodes now.
  Riding riding{.decode = {.decode_rows = std::max(1, worker.sequences), .decode_context = worker.context_tokens},
                .budget = worker.prefill_chunk_tokens};
  if (worker.sequences > 0 && worker.prefill_budget >= 0) {
    riding.budget = worker.prefill_budget;
  } else if (worker.sequences > 0) {
    riding.budget = PrefillBudget(times, request.targets,
                                  {.decode_rows = riding.decode.decode_rows,
                                   .decode_context = riding.decode.decode_context,
                                   .prompts_waiting = worker.queued_prefills + 1,
                                   .prompt_tokens_waiting = worker.queued_prefill_tokens + tokens,
                                   .rate_needed = static_cast<double>(worker.queued_prefill_tokens + tokens) /
                                                  (kTtftShare * request.targets.ttft_ms * 1e3),
                                   .most = worker.prefill_chunk_tokens});
  }
  if (riding.budget <= 0) {
    riding.budget = worker.prefill_chunk_tokens;
    riding.idle_ms = kStarvedSteps * times.StepUs(riding.decode) / 1e3;
  }
  return riding;
}

// So many prompt tokens on D, in steps as full as they go.
struct Ride {
  double ms = 0;
  double added_ms = 0;  // of which the rows beside them lose so much
};

// `cached`: of each of the `prompts`, before the first of these tokens.
Ride RideOn(const StepTimeTable& times, const WorkerView& worker, const Riding& riding, int64_t tokens, int64_t prompts,
            int64_t cached) {
  if (tokens <= 0) return {};
  StepShape loaded = riding.decode;
  loaded.prompt_tokens = std::min(riding.budget, tokens);
  // What a step of theirs finds before it, on average.
  loaded.prompt_context =
      cached + std::max<int64_t>(0, tokens / std::max<int64_t>(1, prompts) - loaded.prompt_tokens) / 2;
  const double steps = static_cast<double>(tokens) / static_cast<double>(loaded.prompt_tokens);
  const double decode_ms = times.StepUs(riding.decode) / 1e3;
  const double added_ms = std::max(0.0, times.StepUs(loaded) / 1e3 - decode_ms);
  const double step_ms =
      worker.sequences > 0
          ? decode_ms + added_ms
          : times.StepUs({.prompt_tokens = loaded.prompt_tokens, .prompt_context = loaded.prompt_context}) / 1e3;
  return {.ms = steps * (step_ms + riding.idle_ms), .added_ms = steps * added_ms};
}

void AddLocalTerms(const SelectionRequest& request, const StepTimeTable& times, Terms& terms) {
  const WorkerView& worker = *terms.worker;
  const int64_t tokens = std::max<int64_t>(1, request.prompt_tokens - worker.cached_tokens);
  const Riding riding = RidingOn(request, times, worker, tokens);
  const Ride ride = RideOn(times, worker, riding, tokens, 1, worker.cached_tokens);
  // Those ahead fill their steps by themselves, however few tokens this request has.
  terms.queue_ms = RideOn(times, worker, riding, worker.queued_prefill_tokens, worker.queued_prefills, 0).ms;
  terms.prefill_ms = ride.ms;
  terms.harm_ms = ride.added_ms * (std::max(1, worker.sequences) + kNextRequestsShare);
  terms.late_ms = LateMs(request, terms);
}

Terms PrefillTerms(const SelectionRequest& request, const WorkerView& worker) {
  Terms terms{.worker = &worker};
  WithTimes(worker, [&](const StepTimeTable& times) {
    terms.queue_ms = PrefillMs(times, worker, worker.queued_prefill_tokens, 0);
    terms.prefill_ms = PrefillMs(times, worker, request.prompt_tokens - worker.cached_tokens, worker.cached_tokens);
  });
  terms.harm_ms = kNextRequestsShare * terms.prefill_ms;
  terms.late_ms = LateMs(request, terms);
  return terms;
}

// Milliseconds; negative: there is no usable path.
double TransferMs(const SelectionRequest& request, const WorkerView& decode, const PathView* path) {
  if (path != nullptr && !path->usable) return -1;
  const double rate =
      path != nullptr && path->gigabytes_per_second > 0 ? path->gigabytes_per_second : kDefaultPathGigabytesPerSecond;
  const double bytes = static_cast<double>((request.prompt_tokens - decode.cached_tokens) * decode.kv_bytes_per_token);
  return kHandoffFixedMs + kExposedTransferShare * bytes / (rate * 1e6);
}

double PromptMs(const Terms& terms) { return terms.queue_ms + terms.prefill_ms + terms.harm_ms + terms.late_ms; }
double DecodeMs(const Terms& terms) { return terms.decode_load_ms + terms.pressure_ms + terms.itl_ms; }

bool AddRemote(const SelectionRequest& request, const Terms& decode, std::span<const Terms> prefills,
               std::vector<Candidate>& candidates) {
  const size_t before = candidates.size();
  const double decode_ms = DecodeMs(decode);
  auto path = decode.worker->paths.begin();
  const auto end = decode.worker->paths.end();
  for (const Terms& prefill : prefills) {
    while (path != end && path->prefill < prefill.worker->id) ++path;
    const bool known = path != end && path->prefill == prefill.worker->id;
    const double transfer_ms = TransferMs(request, *decode.worker, known ? &*path : nullptr);
    if (transfer_ms < 0) continue;
    candidates.push_back({decode_ms + PromptMs(prefill) + transfer_ms, &decode, &prefill, transfer_ms});
  }
  return candidates.size() > before;
}

// The cost that a further candidate must beat to be among the `count` best.
double CostOfKept(const std::vector<Candidate>& candidates, size_t count) {
  if (count == 0 || candidates.size() < count) return std::numeric_limits<double>::infinity();
  std::vector<double> costs;
  costs.reserve(candidates.size());
  for (const Candidate& candidate : candidates) costs.push_back(candidate.cost_ms);
  std::nth_element(costs.begin(), costs.begin() + static_cast<ptrdiff_t>(count - 1), costs.end());
  return costs[count - 1];
}

// No ride is so fast: a token of a whole chunk costs least, save where a step's first tokens are nearly free.
double LeastPromptMs(const SelectionRequest& request, const StepTimeTable& times, const WorkerView& worker) {
  const int64_t tokens = request.prompt_tokens - worker.cached_tokens + worker.queued_prefill_tokens;
  const int64_t chunk = worker.prefill_chunk_tokens;
  return 0.5 * static_cast<double>(tokens) / static_cast<double>(chunk) * times.StepUs({.prompt_tokens = chunk}) / 1e3;
}

Selection ToSelection(const Candidate& candidate) {
  const Terms& decode = *candidate.decode;
  const Terms& first = candidate.prefill == nullptr ? decode : *candidate.prefill;
  Selection selection{.decode = decode.worker->id,
                      .cost_ms = candidate.cost_ms,
                      .queue_ms = first.queue_ms,
                      .prefill_ms = first.prefill_ms,
                      .transfer_ms = candidate.transfer_ms,
                      .decode_load_ms = decode.decode_load_ms,
                      .harm_ms = first.harm_ms,
                      .late_ms = first.late_ms,
                      .pressure_ms = decode.pressure_ms,
                      .itl_ms = decode.itl_ms};
  if (candidate.prefill != nullptr) selection.prefill = candidate.prefill->worker->id;
  return selection;
}

}  // namespace

std::vector<Selection> RankCandidates(const SelectionRequest& request, std::span<const WorkerView> workers,
                                      size_t count) {
  std::vector<Terms> prefills, decodes;
  prefills.reserve(workers.size());
  decodes.reserve(workers.size());  // candidates point into them
  for (const WorkerView& worker : workers) {
    if (worker.available && worker.role == WorkerRole::kPrefill) prefills.push_back(PrefillTerms(request, worker));
  }
  std::vector<Candidate> candidates;
  candidates.reserve(workers.size() * (prefills.size() + 1));
  for (const WorkerView& worker : workers) {
    if (!worker.available || worker.role == WorkerRole::kPrefill) continue;
    Terms& decode = decodes.emplace_back(Terms{.worker = &worker});
    WithTimes(worker, [&](const StepTimeTable& times) { AddDecodeTerms(request, times, decode); });
    decode.has_remote = AddRemote(request, decode, prefills, candidates);
  }
  // What rides is worth computing where it could matter.
  const double worst_kept = CostOfKept(candidates, count);
  for (Terms& decode : decodes) {
    const WorkerView& worker = *decode.worker;
    const bool short_enough = request.max_local_prefill_tokens < 0 ||
                              request.prompt_tokens - worker.cached_tokens <= request.max_local_prefill_tokens;
    if (worker.role != WorkerRole::kHybrid && !short_enough && decode.has_remote) continue;
    if (DecodeMs(decode) > worst_kept) continue;
    WithTimes(worker, [&](const StepTimeTable& times) {
      if (DecodeMs(decode) + LeastPromptMs(request, times, worker) > worst_kept) return;
      AddLocalTerms(request, times, decode);
      candidates.push_back({DecodeMs(decode) + PromptMs(decode), &decode, nullptr, 0});
    });
  }
  const auto key = [](const Candidate& c) {
    return std::tuple(c.cost_ms, c.decode->worker->id, c.prefill == nullptr ? WorkerId{} : c.prefill->worker->id);
  };
  const size_t kept = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + kept, candidates.end(),
                    [&](const Candidate& a, const Candidate& b) { return key(a) < key(b); });
  std::vector<Selection> selections;
  for (size_t i = 0; i < kept; ++i) selections.push_back(ToSelection(candidates[i]));
  return selections;
}

}  // namespace baton
