// Greedy answers of a real engine to requests in JSON, for programs that Python tests drive.
//
// A request: {"tokens": [ids], "max_tokens": n}, and "force": [ids] to generate just these instead.
// An answer: {"tokens": [ids], "logprobs": [of each], "top": [[[id, logprob], [id, logprob]] for each],
//             "prompt_logprobs": [of each prompt token but the first]}
// Errors end the process: these are tests. The program that includes this includes boost/json/src.hpp once.
#pragma once

#include <algorithm>
#include <boost/json.hpp>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <utility>
#include <vector>

#include "core/engine.h"

namespace baton {

template <typename T>
T Check(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cerr << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}

// One sequence from prompt to end, in chunks of `chunk` tokens.
inline boost::json::object Generate(Engine& engine, const boost::json::object& request, int32_t chunk,
                                    bool prompt_scores = true) {
  namespace json = boost::json;
  std::vector<TokenId> tokens = json::value_to<std::vector<TokenId>>(request.at("tokens"));
  const int32_t prompt_length = static_cast<int32_t>(tokens.size());
  std::vector<TokenId> forced;
  if (const json::value* force = request.if_contains("force")) {
    forced = json::value_to<std::vector<TokenId>>(*force);
  }
  const int32_t max_tokens =
      forced.empty() ? json::value_to<int32_t>(request.at("max_tokens")) : static_cast<int32_t>(forced.size());
  std::vector<BlockId> blocks(engine.info().kv.BlocksFor(prompt_length + max_tokens));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::reverse(blocks.begin(), blocks.end());  // the order of ids must not matter
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.top_logprobs = 2;
  json::array logprobs, top, prompt_logprobs;
  int32_t done = 0;
  for (int32_t generated = 0; generated < max_tokens;) {
    BatchItem item;
    item.tokens = tokens;
    item.prompt_length = prompt_length;
    item.start = done;
    item.count = std::min<int32_t>(chunk, static_cast<int32_t>(tokens.size()) - done);
    item.block_table = blocks;
    item.sample = done + item.count == static_cast<int32_t>(tokens.size());
    item.prompt_logprobs = prompt_scores && done < prompt_length;
    item.sampling = &sampling;
    Batch batch;
    batch.items.push_back(item);
    const StepOutput output = Check(engine.Run(batch, nullptr));
    for (const SampledToken& scored : output.items[0].prompt_logprobs) prompt_logprobs.push_back(scored.logprob);
    done += item.count;
    if (!item.sample) continue;
    const SampledToken& sampled = output.items[0].sampled;
    json::array best;
    for (const TokenLogprob& candidate : sampled.top_logprobs) {
      best.push_back(json::array{candidate.token, candidate.logprob});
    }
    tokens.push_back(forced.empty() ? sampled.token : forced[generated]);
    logprobs.push_back(sampled.logprob);
    top.push_back(best);
    ++generated;
  }
  tokens.erase(tokens.begin(), tokens.begin() + prompt_length);
  return {
      {"tokens", json::value_from(tokens)}, {"logprobs", logprobs}, {"top", top}, {"prompt_logprobs", prompt_logprobs}};
}

}  // namespace baton
