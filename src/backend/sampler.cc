#include "backend/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/exp.h"
#include "core/random.h"

namespace baton {
namespace {

constexpr float kGreedyTemperature = 1e-5f;  // below: greedy, as vLLM
constexpr int kLanes = 16;                   // sums and maxima run in lanes, which compilers turn into vectors

struct Best {
  float logit = 0;
  TokenId token = 0;
  bool finite = true;  // every logit is
};

// The largest logit and the lowest id that has it.
Best FindBest(std::span<const float> logits) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  float largest[kLanes];
  float zero[kLanes] = {};  // becomes NaN when a logit is not finite
  std::fill_n(largest, kLanes, kNone);
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      largest[lane] = x > largest[lane] ? x : largest[lane];
      zero[lane] += x * 0.0f;
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) {
    largest[0] = std::max(largest[0], logits[i]);
    zero[0] += logits[i] * 0.0f;
  }
  Best best;
  best.logit = *std::max_element(largest, largest + kLanes);
  for (float lane : zero) best.finite = best.finite && lane == 0.0f;
  best.token = static_cast<TokenId>(std::find(logits.begin(), logits.end(), best.logit) - logits.begin());
  return best;
}

absl::StatusOr<Best> CheckedBest(std::span<const float> logits) {
  const Best best = FindBest(logits);
  if (logits.empty() || !best.finite) {
    return Internal("the model computed logits that are not finite numbers: its weights or its KV cache are damaged");
  }
  return best;
}

// log Σ e^logit.
double LogSumExp(std::span<const float> logits, float maximum) {
  double sums[kLanes] = {};
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    float lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = Exp(logits[i + lane] - maximum);
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += lanes[lane];
  }
  for (size_t i = whole; i < logits.size(); ++i) sums[0] += Exp(logits[i] - maximum);
  double total = 0;
  for (double sum : sums) total += sum;
  return maximum + std::log(total);
}

// The `count` best tokens of raw logits: the larger logit first, then the lower id.
void AddTopLogprobs(std::span<const float> logits, int32_t count, double log_sum, SampledToken& result) {
  std::vector<TokenId> top;
  auto better = [&](TokenId a, TokenId b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); };
  count = std::min<int32_t>(count, static_cast<int32_t>(logits.size()));
  if (count <= 0) return;
  float threshold = -std::numeric_limits<float>::infinity();
  for (TokenId id = 0; id < static_cast<TokenId>(logits.size()); ++id) {
    if (static_cast<int32_t>(top.size()) == count && !(logits[id] > threshold)) continue;
    top.insert(std::upper_bound(top.begin(), top.end(), id, better), id);
    if (static_cast<int32_t>(top.size()) > count) top.pop_back();
    threshold = logits[top.back()];
  }
  for (TokenId id : top) result.top_logprobs.push_back({id, static_cast<float>(logits[id] - log_sum)});
}

void AddLogprobs(std::span<const float> logits, float maximum, int32_t top_logprobs, SampledToken& result) {
  if (top_logprobs < 0) return;
  const double log_sum = LogSumExp(logits, maximum);
  result.logprob = static_cast<float>(logits[result.token] - log_sum);
  AddTopLogprobs(logits, top_logprobs, log_sum, result);
}

// ---- what changes logits before the temperature ----

bool BelowMinTokens(const SamplerInput& input) {
  return static_cast<int64_t>(input.tokens.size()) - input.prompt_length < input.params->min_tokens;
}

bool ChangesLogits(const SamplerInput& input) {
  const SamplingParams& params = *input.params;
  return !params.logit_bias.empty() || BelowMinTokens(input) || params.has_penalties();
}

bool InVocabulary(TokenId token, const SamplerScratch& scratch) {
  return token >= 0 && token < static_cast<TokenId>(scratch.logits.size());
}

void ApplyRepetitionPenalty(const SamplerInput& input, SamplerScratch& scratch) {
  const float penalty = input.params->repetition_penalty;
  if (penalty == 1.0f) return;
  scratch.tokens.assign(input.tokens.begin(), input.tokens.end());
  std::sort(scratch.tokens.begin(), scratch.tokens.end());
  scratch.tokens.erase(std::unique(scratch.tokens.begin(), scratch.tokens.end()), scratch.tokens.end());
  for (TokenId token : scratch.tokens) {
    if (!InVocabulary(token, scratch)) continue;
    float& logit = scratch.logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void ApplyCountPenalties(const SamplerInput& input, SamplerScratch& scratch) {
  const SamplingParams& params = *input.params;
  if (params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f) return;
  scratch.tokens.assign(input.tokens.begin() + input.prompt_length, input.tokens.end());
  std::sort(scratch.tokens.begin(), scratch.tokens.end());
  for (size_t first = 0; first < scratch.tokens.size();) {
    size_t end = first;
    while (end < scratch.tokens.size() && scratch.tokens[end] == scratch.tokens[first]) ++end;
    if (InVocabulary(scratch.tokens[first], scratch)) {
      float& logit = scratch.logits[scratch.tokens[first]];
      logit -= params.frequency_penalty * static_cast<float>(end - first);
      logit -= params.presence_penalty;
    }
    first = end;
  }
}

void ChangeLogits(const SamplerInput& input, SamplerScratch& scratch) {
  const SamplingParams& params = *input.params;
  auto mask = [&](std::span<const TokenId> tokens) {
    for (TokenId token : tokens) {
      if (InVocabulary(token, scratch)) scratch.logits[token] = -std::numeric_limits<float>::infinity();
    }
  };
  scratch.logits.assign(input.logits.begin(), input.logits.end());
  for (const auto& [token, bias] : params.logit_bias) {
    if (InVocabulary(token, scratch)) scratch.logits[token] += bias;
  }
  if (BelowMinTokens(input)) {
    mask(input.end_tokens);
    mask(params.stop_token_ids);
  }
  ApplyRepetitionPenalty(input, scratch);
  ApplyCountPenalties(input, scratch);
}

// ---- truncation and the draw ----

// Weights e^((logit − maximum) / temperature): 1 for the best. Returns their sum, taken in the order of ids.
double ComputeWeights(std::span<const float> logits, float maximum, float temperature, std::vector<float>& weights) {
  weights.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = Exp((logits[i] - maximum) / temperature);
  double sum = 0;
  for (float weight : weights) sum += weight;
  return sum;
}

// Everything whose weight is at least that of the k-th best (ties stay, as in vLLM).
void KeepTopK(int32_t k, SamplerScratch& scratch) {
  std::vector<float>& values = scratch.logits;  // no longer needed
  values = scratch.weights;
  std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<float>());
  const float threshold = values[k - 1];
  scratch.candidates.clear();
  for (TokenId id = 0; id < static_cast<TokenId>(scratch.weights.size()); ++id) {
    if (scratch.weights[id] >= threshold) scratch.candidates.push_back(id);
  }
}

// The fewest best candidates whose weights reach top_p of the sum. Only as many are sorted as can be needed.
void KeepTopP(float top_p, SamplerScratch& scratch) {
  const std::vector<float>& weights = scratch.weights;
  std::vector<TokenId>& candidates = scratch.candidates;
  double total = 0;
  for (TokenId id : candidates) total += weights[id];
  const double wanted = top_p * total;
  auto better = [&](TokenId a, TokenId b) { return weights[a] > weights[b] || (weights[a] == weights[b] && a < b); };
  for (float cutoff = 1e-2f;; cutoff = cutoff < 1e-7f ? 0.0f : cutoff / 16) {
    std::vector<TokenId>& sorted = scratch.sorted;
    sorted.clear();
    for (TokenId id : candidates) {
      if (weights[id] >= cutoff) sorted.push_back(id);
    }
    std::sort(sorted.begin(), sorted.end(), better);
    double sum = 0;
    size_t kept = 0;
    while (kept < sorted.size() && sum < wanted) sum += weights[sorted[kept++]];
    if (sum < wanted && cutoff > 0) continue;
    const TokenId last = sorted[std::max<size_t>(kept, 1) - 1];
    std::erase_if(candidates, [&](TokenId id) { return better(last, id); });
    return;
  }
}

TokenId Draw(const SamplerInput& input, float maximum, std::span<const float> logits, SamplerScratch& scratch) {
  const SamplingParams& params = *input.params;
  const int32_t vocabulary = static_cast<int32_t>(logits.size());
  double sum = ComputeWeights(logits, maximum, params.temperature, scratch.weights);
  const std::vector<float>& weights = scratch.weights;
  const double uniform = KeyedUniform(params.seed, params.choice, input.tokens.size());
  const bool top_k = params.top_k > 0 && params.top_k < vocabulary;
  const bool top_p = params.top_p < 1.0f;
  TokenId last = 0;
  double reached = 0;
  if (!top_k && !top_p && params.min_p <= 0.0f) {
    for (TokenId id = 0; id < vocabulary; ++id) {
      reached += weights[id];
      if (reached > uniform * sum) return id;
      if (weights[id] > 0) last = id;
    }
    return last;
  }
  if (top_k) {
    KeepTopK(params.top_k, scratch);
  } else {
    scratch.candidates.resize(vocabulary);
    for (TokenId id = 0; id < vocabulary; ++id) scratch.candidates[id] = id;
  }
  if (top_p) KeepTopP(params.top_p, scratch);
  if (params.min_p > 0.0f) std::erase_if(scratch.candidates, [&](TokenId id) { return weights[id] < params.min_p; });
  sum = 0;
  for (TokenId id : scratch.candidates) sum += weights[id];
  for (TokenId id : scratch.candidates) {
    reached += weights[id];
    if (reached > uniform * sum) return id;
    if (weights[id] > 0) last = id;
  }
  return last;
}

}  // namespace

absl::StatusOr<SampledToken> Sample(const SamplerInput& input, SamplerScratch& scratch) {
  const SamplingParams& params = *input.params;
  BATON_ASSIGN_OR_RETURN(const Best raw, CheckedBest(input.logits));
  Best best = raw;
  std::span<const float> logits = input.logits;
  if (ChangesLogits(input)) {
    ChangeLogits(input, scratch);
    logits = scratch.logits;
    best = FindBest(logits);
  }
  SampledToken result;
  const bool greedy = params.temperature < kGreedyTemperature || best.logit == -std::numeric_limits<float>::infinity();
  result.token = greedy ? best.token : Draw(input, best.logit, logits, scratch);
  AddLogprobs(input.logits, raw.logit, params.top_logprobs, result);
  return result;
}

absl::StatusOr<SampledToken> ScoreToken(std::span<const float> logits, TokenId token, int32_t top_logprobs) {
  BATON_ASSIGN_OR_RETURN(const Best best, CheckedBest(logits));
  SampledToken result;
  result.token = token;
  AddLogprobs(logits, best.logit, std::max(top_logprobs, 0), result);
  return result;
}

}  // namespace baton
