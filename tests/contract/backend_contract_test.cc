// Folders: backend
// What every Backend owes: the numbers of the model, whatever the batch and the chunks; clear refusals; its KV cache in
// the promised layout. A new backend is one more line at the end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>

#include "backend/backend.h"
#include "naive_llama.h"

namespace baton {
namespace {

struct Implementation {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> create;
  double tolerance;  // of a log-probability
  bool bit_exact;    // results do not depend on the batch and the chunks
  std::vector<DType> kv_dtypes;
};

void PrintTo(const Implementation& implementation, std::ostream* out) { *out << implementation.name; }

TensorView View(const std::vector<float>& values, int64_t rows) {
  TensorView view;
  view.shape = {rows, static_cast<int64_t>(values.size()) / rows};
  if (rows == 1) view.shape = {static_cast<int64_t>(values.size())};
  view.data = reinterpret_cast<const uint8_t*>(values.data());
  view.bytes = static_cast<int64_t>(values.size() * sizeof(float));
  return view;
}

// A backend with the naive model's weights, driven as the engine drives it.
class Runner {
 public:
  Runner(const Implementation& implementation, const NaiveLlama& model, DType kv_dtype, int32_t block_size)
      : model_(model) {
    auto backend = implementation.create();
    EXPECT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    embedding_ = Linear({{&model.embedding, model.shape.vocabulary}});
    head_ = Linear({{&model.head, model.shape.vocabulary}});
    final_norm_ = Vector(model.final_norm);
    for (const NaiveLlama::Layer& layer : model.layers) {
      layers_.push_back({Vector(layer.attention_norm), Linear({{&layer.q, 128}, {&layer.k, 32}, {&layer.v, 32}}),
                         Linear({{&layer.output, 64}}), Vector(layer.mlp_norm),
                         Linear({{&layer.gate, 96}, {&layer.up, 96}}), Linear({{&layer.down, 64}})});
    }
    kv_.num_kv_heads = model.shape.num_kv_heads;
    kv_.num_layers = model.shape.num_layers;
    kv_.block_size = block_size;
    kv_.head_dim = model.shape.head_dim;
    kv_.dtype = kv_dtype;
    const absl::Status started = backend_->Start(model.shape, kv_, kBlocks, {256, 8});
    EXPECT_TRUE(started.ok()) << started;
  }

  static constexpr int32_t kBlocks = 600;
  Backend& backend() { return *backend_; }
  const KvLayout& kv() const { return kv_; }

  absl::StatusOr<StepOutput> Run(const Batch& batch) {
    Backend& b = *backend_;
    BATON_RETURN_IF_ERROR(b.BeginStep(batch));
    BATON_RETURN_IF_ERROR(b.Embed(*embedding_));
    for (int32_t i = 0; i < model_.shape.num_layers; ++i) {
      BATON_RETURN_IF_ERROR(b.Norm(*layers_[i].attention_norm, i > 0));
      BATON_RETURN_IF_ERROR(b.Linear(*layers_[i].qkv, Slot::kNormed, Slot::kQkv));
      BATON_RETURN_IF_ERROR(b.RotateAndAppend(i));
      BATON_RETURN_IF_ERROR(b.Attention(i));
      BATON_RETURN_IF_ERROR(b.Linear(*layers_[i].output, Slot::kAttention, Slot::kDelta));
      BATON_RETURN_IF_ERROR(b.AllReduce(Slot::kDelta));
      BATON_RETURN_IF_ERROR(b.Norm(*layers_[i].mlp_norm, true));
      BATON_RETURN_IF_ERROR(b.Linear(*layers_[i].gate_up, Slot::kNormed, Slot::kGateUp));
      BATON_RETURN_IF_ERROR(b.SwiGlu());
      BATON_RETURN_IF_ERROR(b.Linear(*layers_[i].down, Slot::kActivated, Slot::kDelta));
      BATON_RETURN_IF_ERROR(b.AllReduce(Slot::kDelta));
    }
    BATON_RETURN_IF_ERROR(b.Logits(*final_norm_, *head_));
    BATON_RETURN_IF_ERROR(b.EndStep());
    return b.CollectStep();
  }

 private:
  struct Layer {
    std::unique_ptr<VectorWeight> attention_norm;
    std::unique_ptr<LinearWeight> qkv, output;
    std::unique_ptr<VectorWeight> mlp_norm;
    std::unique_ptr<LinearWeight> gate_up, down;
  };
  std::unique_ptr<LinearWeight> Linear(const std::vector<std::pair<const std::vector<float>*, int64_t>>& parts) {
    std::vector<LinearSource> sources;
    for (const auto& [values, rows] : parts) sources.push_back({View(*values, rows)});
    auto weight = backend_->PrepareLinear(sources);
    EXPECT_TRUE(weight.ok()) << weight.status();
    return *std::move(weight);
  }
  std::unique_ptr<VectorWeight> Vector(const std::vector<float>& values) {
    auto weight = backend_->PrepareVector(View(values, 1));
    EXPECT_TRUE(weight.ok()) << weight.status();
    return *std::move(weight);
  }

  const NaiveLlama& model_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LinearWeight> embedding_, head_;
  std::unique_ptr<VectorWeight> final_norm_;
  std::vector<Layer> layers_;
  KvLayout kv_;
};

std::vector<TokenId> RandomTokens(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 130);
  return tokens;
}

// A sequence whose log-probabilities are all asked for, token by token of its prompt.
struct Sequence {
  Sequence(int count, uint32_t seed, int32_t first_block, const KvLayout& kv) : tokens(RandomTokens(count, seed)) {
    for (int32_t i = 0; i < kv.BlocksFor(count); ++i) blocks.push_back(first_block - i);  // not in memory order
    sampling.temperature = 0;
    sampling.top_logprobs = 130;
  }
  BatchItem Item(int32_t start, int32_t count) const {
    BatchItem item;
    item.tokens = tokens;
    item.prompt_length = static_cast<int32_t>(tokens.size());
    item.start = start;
    item.count = count;
    item.block_table = blocks;
    item.prompt_logprobs = true;
    item.sample = start + count == item.prompt_length;
    item.sampling = &sampling;
    return item;
  }
  std::vector<TokenId> tokens;
  std::vector<BlockId> blocks;
  SamplingParams sampling;
};

// Log-probabilities of every token after every position, in chunks.
std::vector<std::map<TokenId, float>> RunInChunks(Runner& runner, const Sequence& sequence, int32_t chunk) {
  std::vector<std::map<TokenId, float>> rows;
  auto add = [&](const SampledToken& scored) {
    std::map<TokenId, float>& row = rows.emplace_back();
    for (const TokenLogprob& top : scored.top_logprobs) row[top.token] = top.logprob;
  };
  const int32_t total = static_cast<int32_t>(sequence.tokens.size());
  for (int32_t start = 0; start < total; start += chunk) {
    Batch batch;
    batch.items.push_back(sequence.Item(start, std::min(chunk, total - start)));
    const absl::StatusOr<StepOutput> output = runner.Run(batch);
    EXPECT_TRUE(output.ok()) << output.status();
    if (!output.ok()) return rows;
    for (const SampledToken& scored : output->items[0].prompt_logprobs) add(scored);
    if (batch.items[0].sample) add(output->items[0].sampled);
  }
  return rows;
}

class BackendContract : public testing::TestWithParam<Implementation> {};

TEST_P(BackendContract, LogprobsAreTheModels) {
  for (bool interleaved : {false, true}) {
    const NaiveLlama model(1, interleaved);
    for (DType kv_dtype : GetParam().kv_dtypes) {
      Runner runner(GetParam(), model, kv_dtype, 16);
      const Sequence sequence(75, 2, 300, runner.kv());
      const auto expected = model.Logprobs(sequence.tokens);
      for (int32_t chunk : {75, 32, 1}) {
        const auto rows = RunInChunks(runner, sequence, chunk);
        ASSERT_EQ(rows.size(), expected.size());
        for (size_t t = 0; t < rows.size(); ++t) {
          ASSERT_EQ(rows[t].size(), 130u);
          for (const auto& [token, logprob] : rows[t]) {
            ASSERT_NEAR(logprob, expected[t][token], GetParam().tolerance * (kv_dtype == DType::kI8 ? 10 : 1))
                << "after token " << t << ", chunk " << chunk;
          }
        }
      }
    }
  }
}

TEST_P(BackendContract, PromptLogprobsNameTheNextToken) {
  const NaiveLlama model(1, false);
  Runner runner(GetParam(), model, GetParam().kv_dtypes[0], 16);
  const Sequence sequence(20, 2, 300, runner.kv());
  Batch batch;
  batch.items.push_back(sequence.Item(0, 20));
  const absl::StatusOr<StepOutput> output = runner.Run(batch);
  ASSERT_TRUE(output.ok());
  ASSERT_EQ(output->items[0].prompt_logprobs.size(), 19u);  // one less at the prompt's end
  for (int i = 0; i < 19; ++i) {
    const SampledToken& scored = output->items[0].prompt_logprobs[i];
    EXPECT_EQ(scored.token, sequence.tokens[i + 1]);
    const auto same = std::ranges::find(scored.top_logprobs, scored.token, &TokenLogprob::token);
    EXPECT_EQ(scored.logprob, same->logprob);
  }
}

TEST_P(BackendContract, BitsDoNotDependOnBatchChunkOrBlocks) {
  if (!GetParam().bit_exact) GTEST_SKIP() << "not promised";
  const NaiveLlama model(3, false);
  for (DType kv_dtype : GetParam().kv_dtypes) {
    Runner runner(GetParam(), model, kv_dtype, 16);
    const auto expected = RunInChunks(runner, Sequence(90, 4, 300, runner.kv()), 90);
    for (int32_t chunk : {1, 7, 40}) {
      EXPECT_EQ(RunInChunks(runner, Sequence(90, 4, 300, runner.kv()), chunk), expected) << chunk;
    }
    for (int32_t block_size : {1, 5, 128}) {
      Runner other(GetParam(), model, kv_dtype, block_size);
      EXPECT_EQ(RunInChunks(other, Sequence(90, 4, 300, other.kv()), 33), expected) << "block size " << block_size;
    }
  }
}

TEST_P(BackendContract, BitsDoNotDependOnTheCompany) {
  if (!GetParam().bit_exact) GTEST_SKIP() << "not promised";
  const NaiveLlama model(3, false);
  Runner runner(GetParam(), model, GetParam().kv_dtypes[0], 16);
  const Sequence sequence(90, 4, 300, runner.kv());
  const auto expected = RunInChunks(runner, sequence, 90);
  // Three sequences prefill while this one decodes its last token.
  Batch batch;
  const Sequence a(30, 7, 50, runner.kv()), b(61, 8, 100, runner.kv()), c(2, 9, 150, runner.kv());
  batch.items = {a.Item(0, 30), sequence.Item(89, 1), b.Item(0, 61), c.Item(0, 2)};
  const absl::StatusOr<StepOutput> output = runner.Run(batch);
  ASSERT_TRUE(output.ok()) << output.status();
  for (const TokenLogprob& top : output->items[1].sampled.top_logprobs) {
    EXPECT_EQ(top.logprob, expected.back().at(top.token));
  }
}

// Decode of a long sequence may be shared among threads; prefill of the same positions is not.
TEST_P(BackendContract, LongSequencesDecodeToThePrefillsBits) {
  if (!GetParam().bit_exact) GTEST_SKIP() << "not promised";
  const NaiveLlama model(3, false);
  for (DType kv_dtype : GetParam().kv_dtypes) {
    Runner runner(GetParam(), model, kv_dtype, 16);
    Sequence sequence(700, 4, 300, runner.kv());
    Batch batch;
    for (int32_t start = 0; start < 700; start += 100) {
      batch.items = {sequence.Item(start, 100)};
      batch.items[0].prompt_logprobs = false;
      const absl::StatusOr<StepOutput> output = runner.Run(batch);
      ASSERT_TRUE(output.ok()) << output.status();
      if (!batch.items[0].sample) continue;
      batch.items = {sequence.Item(699, 1)};
      const absl::StatusOr<StepOutput> again = runner.Run(batch);
      ASSERT_TRUE(again.ok()) << again.status();
      const auto& expected = output->items[0].sampled.top_logprobs;
      const auto& found = again->items[0].sampled.top_logprobs;
      ASSERT_EQ(found.size(), expected.size());
      for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].logprob, expected[i].logprob);
    }
  }
}

TEST_P(BackendContract, KeysAndValuesLieWhereTheLayoutSays) {
  const NaiveLlama model(3, false);
  Runner runner(GetParam(), model, GetParam().kv_dtypes[0], 16);
  const KvMemory memory = runner.backend().kv_memory();
  EXPECT_EQ(memory.bytes, Runner::kBlocks * runner.kv().block_bytes());
  if (memory.shareable_fd < 0) GTEST_SKIP() << "not host memory";
  const Sequence sequence(20, 4, 300, runner.kv());
  const auto expected = RunInChunks(runner, sequence, 20);
  // Moves both blocks elsewhere, as a hand-off does, and decodes the last token again from there.
  Sequence moved = sequence;
  moved.blocks = {7, 500};
  for (int i = 0; i < 2; ++i) {
    std::memcpy(memory.base + moved.blocks[i] * runner.kv().block_bytes(),
                memory.base + sequence.blocks[i] * runner.kv().block_bytes(), runner.kv().block_bytes());
  }
  Batch batch;
  batch.items.push_back(moved.Item(19, 1));
  const absl::StatusOr<StepOutput> output = runner.Run(batch);
  ASSERT_TRUE(output.ok()) << output.status();
  for (const TokenLogprob& top : output->items[0].sampled.top_logprobs) {
    EXPECT_EQ(top.logprob, expected.back().at(top.token));
  }
  // Every head, layer, K and V of token 0 was written; of token 4 in the second block, nothing was.
  for (int32_t head = 0; head < 2; ++head) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      for (int32_t v = 0; v < 2; ++v) {
        const uint8_t* block = memory.base + sequence.blocks[0] * runner.kv().block_bytes();
        const uint8_t* row = block + runner.kv().PlaneOffset(head, layer, v);
        EXPECT_TRUE(std::any_of(row, row + runner.kv().row_bytes(), [](uint8_t byte) { return byte != 0; }));
        row = memory.base + sequence.blocks[1] * runner.kv().block_bytes() + runner.kv().PlaneOffset(head, layer, v) +
              4 * runner.kv().row_bytes();
        EXPECT_TRUE(std::all_of(row, row + runner.kv().row_bytes(), [](uint8_t byte) { return byte == 0; }));
      }
    }
  }
}

TEST_P(BackendContract, CopyBlock) {
  const NaiveLlama model(3, false);
  Runner runner(GetParam(), model, GetParam().kv_dtypes[0], 16);
  Sequence sequence(16, 4, 300, runner.kv());
  const auto expected = RunInChunks(runner, sequence, 16);
  ASSERT_TRUE(runner.backend().CopyBlock(300, 12).ok());
  sequence.blocks = {12};
  Batch batch;
  batch.items.push_back(sequence.Item(15, 1));
  const absl::StatusOr<StepOutput> output = runner.Run(batch);
  ASSERT_TRUE(output.ok()) << output.status();
  for (const TokenLogprob& top : output->items[0].sampled.top_logprobs) {
    EXPECT_NEAR(top.logprob, expected.back().at(top.token), GetParam().bit_exact ? 0 : GetParam().tolerance);
  }
  EXPECT_FALSE(runner.backend().CopyBlock(0, Runner::kBlocks).ok());
  EXPECT_FALSE(runner.backend().CopyBlock(-1, 0).ok());
}

TEST_P(BackendContract, RefusesWhatItCannotDo) {
  auto created = GetParam().create();
  ASSERT_TRUE(created.ok());
  Backend& backend = **created;
  EXPECT_FALSE(backend.info().name.empty());
  EXPECT_FALSE(backend.info().instruction_set.empty());
  EXPECT_GT(backend.info().default_block_size, 0);
  EXPECT_FALSE(backend.PrepareLinear({}).ok());
  std::vector<float> values(64);
  LinearSource source = {View(values, 2)};
  source.weight.bytes -= 1;
  EXPECT_FALSE(backend.PrepareLinear(std::span(&source, 1)).ok());
  const std::vector<uint8_t> encoded(256);
  source.weight = {DType::kF8E4M3, {1, 256}, encoded.data(), 256};
  const absl::Status unknown = backend.PrepareLinear(std::span(&source, 1)).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(Message(unknown).find("F8_E4M3"), std::string_view::npos) << unknown;
}

Implementation Cpu(const std::string& instruction_set, int32_t threads) {
  return {Cat("cpu_", instruction_set, "_", threads),
          [=] {
            return CreateCpuBackend({threads, instruction_set});
          },
          3e-2,
          true,
          {DType::kF16, DType::kF32, DType::kI8}};
}

// Every code path that this machine has.
std::vector<Implementation> Cpus() {
  std::vector<Implementation> all;
  for (const std::string& path : CpuInstructionSets()) {
    all.push_back(Cpu(path, 1));
    if (path != "plain") all.push_back(Cpu(path, 3));
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Backends, BackendContract, testing::ValuesIn(Cpus()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baton
