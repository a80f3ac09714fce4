// What tests of whole engines share: dummy models, engines, sequences with blocks of their own.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/llama.h"
#include "model/dummy.h"
#include "model/shape_preset.h"

namespace baton {

inline Model MakeModel(const std::string& preset, int32_t layers, int32_t vocabulary, bool as_recipes = false) {
  ModelParts parts;
  parts.config = *ShapePreset(preset);
  parts.config.num_layers = layers;
  parts.config.vocabulary = vocabulary;
  parts.config.bos = 0;
  parts.config.eos = {1};
  EXPECT_TRUE(MakeDummyWeights(7, parts, as_recipes).ok());
  auto model = Model::Create(std::move(parts), preset);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

inline std::unique_ptr<Engine> MakeEngine(const Model& model, bool cuda, DType kv, const CudaOptions& gpu = {}) {
  auto backend = cuda ? CreateCudaBackend(gpu) : CreateCpuBackend({.threads = 8});
  EXPECT_TRUE(backend.ok()) << backend.status();
  EngineOptions options;
  options.kv_bytes = int64_t{1} << 30;
  options.kv_dtype = kv;
  options.max_model_len = 4096;
  options.max_batch_tokens = 1024;
  auto engine = CreateLlamaEngine(model, *std::move(backend), options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

// One sequence with blocks of its own.
struct Sequence {
  Sequence(const Engine& engine, std::vector<TokenId> prompt, int32_t number) : tokens(std::move(prompt)) {
    prompt_length = static_cast<int32_t>(tokens.size());
    const int32_t blocks = engine.info().kv.BlocksFor(prompt_length + 64);
    for (int32_t i = 0; i < blocks; ++i) table.push_back(number * blocks + blocks - 1 - i);
    sampling.temperature = 0;
    sampling.top_logprobs = 20;
  }
  BatchItem Item(int32_t start, int32_t count, bool sample) const {
    BatchItem item;
    item.tokens = tokens;
    item.prompt_length = prompt_length;
    item.start = start;
    item.count = count;
    item.block_table = table;
    item.sample = sample;
    item.sampling = &sampling;
    return item;
  }
  std::vector<TokenId> tokens;
  int32_t prompt_length = 0;
  std::vector<BlockId> table;
  SamplingParams sampling;
};

inline StepOutput RunBatch(Engine& engine, const Batch& batch) {
  auto output = engine.Run(batch, nullptr);
  EXPECT_TRUE(output.ok()) << output.status();
  return output.ok() ? *std::move(output) : StepOutput();
}

inline std::vector<TokenId> RandomPrompt(const Engine& engine, int32_t length, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(length);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % engine.info().vocabulary);
  return tokens;
}

// Prefills in chunks; returns the last token's result.
inline SampledToken Prefill(Engine& engine, const Sequence& sequence, int32_t chunk) {
  SampledToken last;
  for (int32_t at = 0; at < sequence.prompt_length; at += chunk) {
    const int32_t count = std::min(chunk, sequence.prompt_length - at);
    Batch batch;
    batch.items.push_back(sequence.Item(at, count, at + count == sequence.prompt_length));
    const StepOutput output = RunBatch(engine, batch);
    if (output.items.size() == 1) last = output.items[0].sampled;
  }
  return last;
}

}  // namespace baton
