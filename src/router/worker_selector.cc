#include "router/worker_selector.h"

#include <algorithm>
#include <cmath>
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
// A second copy of what another worker has cached evicts as much that only one has, and which somebody will compute
// again.
constexpr double kSecondCopyShare = 1.5;
// A request that misses its target is lost for goodput: at the target, a millisecond is worth so many of others. Beyond
// it, at so much of the target, half as many.
constexpr double kLatePrice = 20;
constexpr double kLateScale = 0.3;
// Steps that a scheduler lets pass before it serves a starved prefill.
constexpr double kStarvedSteps = 32;

// What other workers do on the same engine.
struct Neighbours {
  double decode_ms = 0;   // of their decode steps, one of each
  double queue_ms = 0;    // of the prompts that they have to compute
  double chunk_ms = 0;    // of the longest step that carries some
  int32_t sequences = 0;  // that they decode
};

// A worker's part of the costs of its pairs.
struct Terms {
  const WorkerView* worker = nullptr;
  Neighbours neighbours;
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_load_ms = 0;
  double harm_ms = 0;
  double late_ms = 0;
  double pressure_ms = 0;
  double itl_ms = 0;
};

// A request, and what all candidates have in common.
struct Question {
  const SelectionRequest& request;
  int64_t best_cached = 0;  // tokens of the prompt that some worker has
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

double PrefillMs(const StepTimeTable& times, const WorkerView& worker, int64_t tokens, int64_t cached,
                 int64_t prompts = 1) {
  return times.PrefillUs(tokens, cached, worker.prefill_chunk_tokens, prompts) / 1e3;
}

// Steep at the target and ever flatter beyond: a first token that is a little late was worth some effort, while of two
// that are late anyway neither is worth much more than the time between them.
double LateMs(const SelectionRequest& request, const Terms& terms) {
  const double target_ms = request.targets.ttft_ms, scale_ms = kLateScale * target_ms;
  const double late_ms = std::max(0.0, terms.queue_ms + terms.prefill_ms - kTtftShare * target_ms);
  return scale_ms > 0 ? kLatePrice * scale_ms * std::log1p(late_ms / scale_ms) : 0;
}

// By computing what others have.
double SecondCopyMs(const StepTimeTable& times, const WorkerView& worker, int64_t best_cached) {
  return kSecondCopyShare * PrefillMs(times, worker, best_cached - worker.cached_tokens, worker.cached_tokens);
}

double QueueMs(const StepTimeTable& times, const WorkerView& worker) {
  return PrefillMs(times, worker, worker.queued_prefill_tokens, 0, worker.queued_prefills);
}

Neighbours NeighboursOf(const WorkerView& worker, std::span<const WorkerView> workers) {
  Neighbours found;
  if (worker.engine == 0) return found;
  for (const WorkerView& other : workers) {
    if (other.engine != worker.engine || other.id == worker.id) continue;
    WithTimes(other, [&](const StepTimeTable& times) {
      found.decode_ms += times.StepUs({.decode_rows = other.sequences, .decode_context = other.context_tokens}) / 1e3;
      found.queue_ms += QueueMs(times, other);
      if (other.queued_prefill_tokens > 0) {
        found.chunk_ms = std::max(found.chunk_ms, PrefillMs(times, other, other.prefill_chunk_tokens, 0));
      }
    });
    found.sequences += other.sequences;
  }
  return found;
}

// What `steps` steps of one worker wait for in the turns of the others.
double TurnsMs(const Neighbours& neighbours, double steps) {
  return steps * neighbours.decode_ms + std::min(neighbours.queue_ms, steps * neighbours.chunk_ms);
}

// What it costs to decode on this worker, whoever prefills.
void AddDecodeTerms(const SelectionRequest& request, const StepTimeTable& times, Terms& terms) {
  const WorkerView& worker = *terms.worker;
  const Neighbours& neighbours = terms.neighbours;
  const auto expected = static_cast<double>(std::min(request.max_tokens, kExpectedTokensMax));
  const double alone_ms = times.StepUs({.decode_rows = 1, .decode_context = request.prompt_tokens}) / 1e3;
  const double own_ms = times.StepUs({.decode_rows = worker.sequences + 1,
                                      .decode_context = worker.context_tokens + request.prompt_tokens}) /
                        1e3;
  const double with_all_ms = own_ms + neighbours.decode_ms;
  terms.decode_load_ms =
      std::max(0.0, with_all_ms - alone_ms) * expected + std::min(neighbours.queue_ms, expected * neighbours.chunk_ms);
  // Where nobody decoded before, its steps are new to those who decode on the same engine.
  if (worker.sequences == 0) terms.decode_load_ms += own_ms * expected * neighbours.sequences;
  // Beyond the target every sequence on D misses it.
  terms.itl_ms =
      std::max(0.0, with_all_ms - request.targets.itl_ms) * expected * (worker.sequences + neighbours.sequences);
  const int64_t needed = request.prompt_tokens - worker.cached_tokens + static_cast<int64_t>(expected);
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
  double steps = 0;
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
  return {.ms = steps * (step_ms + riding.idle_ms), .added_ms = steps * added_ms, .steps = steps};
}

void AddLocalTerms(const Question& question, const StepTimeTable& times, Terms& terms) {
  const SelectionRequest& request = question.request;
  const WorkerView& worker = *terms.worker;
  const int64_t tokens = std::max<int64_t>(1, request.prompt_tokens - worker.cached_tokens);
  const Riding riding = RidingOn(request, times, worker, tokens);
  const Ride ride = RideOn(times, worker, riding, tokens, 1, worker.cached_tokens);
  // Those ahead fill their steps by themselves, however few tokens this request has.
  const Ride ahead = RideOn(times, worker, riding, worker.queued_prefill_tokens, worker.queued_prefills, 0);
  terms.queue_ms = ahead.ms;
  terms.prefill_ms = ride.ms + TurnsMs(terms.neighbours, ahead.steps + ride.steps);
  terms.harm_ms = ride.added_ms * (std::max(1, worker.sequences) + kNextRequestsShare) +
                  (worker.sequences > 0 ? ride.added_ms : ride.ms) * terms.neighbours.sequences +
                  SecondCopyMs(times, worker, question.best_cached);
  terms.late_ms = LateMs(request, terms);
}

Terms PrefillTerms(const Question& question, const WorkerView& worker, const Neighbours& neighbours) {
  const SelectionRequest& request = question.request;
  Terms terms{.worker = &worker, .neighbours = neighbours};
  const int64_t tokens = request.prompt_tokens - worker.cached_tokens;
  WithTimes(worker, [&](const StepTimeTable& times) {
    terms.queue_ms = QueueMs(times, worker);
    terms.prefill_ms = PrefillMs(times, worker, tokens, worker.cached_tokens);
    terms.harm_ms = terms.prefill_ms * (kNextRequestsShare + neighbours.sequences) +
                    SecondCopyMs(times, worker, question.best_cached);
  });
  const auto chunk = static_cast<double>(std::max(1, worker.prefill_chunk_tokens));
  terms.prefill_ms += TurnsMs(neighbours, std::ceil(static_cast<double>(tokens) / chunk) +
                                              std::ceil(static_cast<double>(worker.queued_prefill_tokens) / chunk));
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

// The best candidates so far, best first; ties: lower ids first.
class Best {
 public:
  // `count`: at least 1.
  explicit Best(size_t count) : count_(count) { candidates_.reserve(std::min<size_t>(count, 8)); }
  // A further candidate that costs more is not among them.
  double bound() const {
    return candidates_.size() < count_ ? std::numeric_limits<double>::infinity() : candidates_.back().cost_ms;
  }
  void Offer(const Candidate& candidate) {
    if (candidate.cost_ms > bound()) return;
    if (candidates_.size() == count_) {
      if (Key(candidate) > Key(candidates_.back())) return;
      candidates_.pop_back();
    }
    candidates_.insert(std::ranges::upper_bound(candidates_, Key(candidate), {}, Key), candidate);
  }
  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  static std::tuple<double, WorkerId, WorkerId> Key(const Candidate& c) {
    return {c.cost_ms, c.decode->worker->id, c.prefill == nullptr ? WorkerId{} : c.prefill->worker->id};
  }
  const size_t count_;
  std::vector<Candidate> candidates_;
};

const PathView* FindPath(const WorkerView& decode, WorkerId prefill) {
  const auto found = std::ranges::lower_bound(decode.paths, prefill, {}, &PathView::prefill);
  return found == decode.paths.end() || found->prefill != prefill ? nullptr : &*found;
}

// `prefills`: ascending by PromptMs. A pair costs what D costs, what P costs and the transfer, so nothing beyond the
// first P that is too dear by itself is worth a look.
void AddRemote(const SelectionRequest& request, const Terms& decode, std::span<const Terms> prefills, Best& best) {
  const double decode_ms = DecodeMs(decode);
  for (const Terms& prefill : prefills) {
    const double cost_ms = decode_ms + PromptMs(prefill);
    if (cost_ms > best.bound()) return;
    const double transfer_ms = TransferMs(request, *decode.worker, FindPath(*decode.worker, prefill.worker->id));
    if (transfer_ms >= 0) best.Offer({cost_ms + transfer_ms, &decode, &prefill, transfer_ms});
  }
}

bool HasPath(const WorkerView& decode, std::span<const Terms> prefills) {
  return std::ranges::any_of(prefills, [&](const Terms& prefill) {
    const PathView* path = FindPath(decode, prefill.worker->id);
    return path == nullptr || path->usable;
  });
}

// No ride is so fast: a token of a whole chunk costs least, save where a step's first tokens are nearly free.
double LeastPromptMs(const SelectionRequest& request, const StepTimeTable& times, const WorkerView& worker) {
  const int64_t tokens = request.prompt_tokens - worker.cached_tokens + worker.queued_prefill_tokens;
  const int64_t chunk = worker.prefill_chunk_tokens;
  return 0.5 * static_cast<double>(tokens) / static_cast<double>(chunk) * times.StepUs({.prompt_tokens = chunk}) / 1e3;
}

// Prefill where it decodes.
void AddLocal(const Question& question, std::span<const Terms> prefills, Terms& decode, Best& best) {
  const SelectionRequest& request = question.request;
  const WorkerView& worker = *decode.worker;
  const bool short_enough = request.max_local_prefill_tokens < 0 ||
                            request.prompt_tokens - worker.cached_tokens <= request.max_local_prefill_tokens;
  if (worker.role != WorkerRole::kHybrid && !short_enough && HasPath(worker, prefills)) return;
  WithTimes(worker, [&](const StepTimeTable& times) {
    if (DecodeMs(decode) + LeastPromptMs(request, times, worker) > best.bound()) return;
    AddLocalTerms(question, times, decode);
    best.Offer({DecodeMs(decode) + PromptMs(decode), &decode, nullptr, 0});
  });
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
  if (count == 0) return {};
  Question question{request};
  for (const WorkerView& worker : workers) {
    if (worker.available) question.best_cached = std::max(question.best_cached, worker.cached_tokens);
  }
  std::vector<Terms> prefills, decodes;  // candidates point into them
  prefills.reserve(workers.size());
  decodes.reserve(workers.size());
  for (const WorkerView& worker : workers) {
    if (!worker.available) continue;
    const Neighbours neighbours = NeighboursOf(worker, workers);
    if (worker.role == WorkerRole::kPrefill) {
      prefills.push_back(PrefillTerms(question, worker, neighbours));
    } else {
      Terms& decode = decodes.emplace_back(Terms{.worker = &worker, .neighbours = neighbours});
      WithTimes(worker, [&](const StepTimeTable& times) { AddDecodeTerms(request, times, decode); });
    }
  }
  // The cheapest first, so that the others can be left out early.
  std::ranges::sort(prefills, {}, [](const Terms& terms) { return std::pair(PromptMs(terms), terms.worker->id); });
  std::ranges::sort(decodes, {}, [](const Terms& terms) { return std::pair(DecodeMs(terms), terms.worker->id); });
  Best best(count);
  for (const Terms& decode : decodes) {
    if (DecodeMs(decode) > best.bound()) break;
    AddRemote(request, decode, prefills, best);
  }
  // What rides is worth computing where it could matter.
  for (Terms& decode : decodes) {
    if (DecodeMs(decode) > best.bound()) break;
    AddLocal(question, prefills, decode, best);
  }
  std::vector<Selection> selections;
  selections.reserve(best.candidates().size());
  for (const Candidate& candidate : best.candidates()) selections.push_back(ToSelection(candidate));
  return selections;
}

}  // namespace baton
