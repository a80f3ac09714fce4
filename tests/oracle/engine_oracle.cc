// Folders: engine
// Runs prompts greedily through a real engine, for Python tests that compare it with a reference.
//
//   engine_oracle MODEL [chunk=N] [threads=N] [block_size=N] [isa=NAME] [kv=F16|I8|F32] < prompts.jsonl
//
// A line in:  {"tokens": [ids], "max_tokens": n}, and "force": [ids] to generate just these instead.
// A line out: {"tokens": [ids], "logprobs": [of each], "top": [[[id, logprob], [id, logprob]] for each],
//              "prompt_logprobs": [of each prompt token but the first]}
#include <algorithm>
#include <boost/json/src.hpp>
#include <cstdlib>
#include <iostream>
#include <map>
#include <numeric>
#include <string>

#include "engine/llama.h"

namespace {

namespace json = boost::json;

struct Options {
  baton::CpuOptions cpu;
  baton::EngineOptions engine;
  int32_t chunk = 512;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  options.engine.max_batch_tokens = 4096;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "chunk") {
      options.chunk = std::atoi(value.c_str());
    } else if (name == "threads") {
      options.cpu.threads = std::atoi(value.c_str());
    } else if (name == "block_size") {
      options.engine.block_size = std::atoi(value.c_str());
    } else if (name == "isa") {
      options.cpu.instruction_set = value;
    } else if (name == "kv") {
      options.engine.kv_dtype = value == "F32"  ? baton::DType::kF32
                                : value == "I8" ? baton::DType::kI8
                                                : baton::DType::kF16;
    } else {
      std::cerr << "unknown option " << argument << "\n";
      std::exit(2);
    }
  }
  return options;
}

template <typename T>
T Check(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cerr << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}

// One sequence from prompt to end, in chunks.
json::object Generate(baton::Engine& engine, const json::object& request, int32_t chunk) {
  std::vector<baton::TokenId> tokens = json::value_to<std::vector<baton::TokenId>>(request.at("tokens"));
  const int32_t prompt_length = static_cast<int32_t>(tokens.size());
  std::vector<baton::TokenId> forced;
  if (const json::value* force = request.if_contains("force")) {
    forced = json::value_to<std::vector<baton::TokenId>>(*force);
  }
  const int32_t max_tokens =
      forced.empty() ? json::value_to<int32_t>(request.at("max_tokens")) : static_cast<int32_t>(forced.size());
  std::vector<baton::BlockId> blocks(engine.info().kv.BlocksFor(prompt_length + max_tokens));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::reverse(blocks.begin(), blocks.end());  // the order of ids must not matter
  baton::SamplingParams sampling;
  sampling.temperature = 0;
  sampling.top_logprobs = 2;
  json::array logprobs, top, prompt_logprobs;
  int32_t done = 0;
  for (int32_t generated = 0; generated < max_tokens;) {
    baton::BatchItem item;
    item.tokens = tokens;
    item.prompt_length = prompt_length;
    item.start = done;
    item.count = std::min<int32_t>(chunk, static_cast<int32_t>(tokens.size()) - done);
    item.block_table = blocks;
    item.sample = done + item.count == static_cast<int32_t>(tokens.size());
    item.prompt_logprobs = done < prompt_length;
    item.sampling = &sampling;
    baton::Batch batch;
    batch.items.push_back(item);
    const baton::StepOutput output = Check(engine.Run(batch, nullptr));
    for (const baton::SampledToken& scored : output.items[0].prompt_logprobs) prompt_logprobs.push_back(scored.logprob);
    done += item.count;
    if (!item.sample) continue;
    const baton::SampledToken& sampled = output.items[0].sampled;
    json::array best;
    for (const baton::TokenLogprob& candidate : sampled.top_logprobs) {
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

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: engine_oracle MODEL [chunk=N] [threads=N] [block_size=N] [isa=NAME] [kv=TYPE] < prompts\n";
    return 2;
  }
  const Options options = ParseOptions(argc, argv);
  const baton::Model model = Check(baton::LoadModel(argv[1]));
  auto engine = Check(baton::CreateLlamaEngine(model, Check(baton::CreateCpuBackend(options.cpu)), options.engine));
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << json::serialize(Generate(*engine, json::parse(line).as_object(), options.chunk)) << std::endl;
  }
  return 0;
}
