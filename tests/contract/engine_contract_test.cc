// Folders: engine
// What every Engine owes to the scheduler and to the hand-off: the same tokens whatever the batch, the chunks and the
// blocks; the sink called in order, when K and V are there; impossible batches refused. A new engine is one more line
// at the end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <string>

#include "engine/llama.h"
#include "model/dummy.h"
#include "model/rope.h"

namespace baton {
namespace {

struct EngineRequest {
  int32_t block_size = 16;
  int32_t layer_group = 2;
  int32_t num_blocks = 64;
  uint64_t seed = 1;  // of the weights
};

struct Implementation {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Engine>>(const EngineRequest&)> create;
};

void PrintTo(const Implementation& implementation, std::ostream* out) { *out << implementation.name; }

// One sequence and what it generates, in steps that the test chooses.
struct Sequence {
  Sequence(int prompt, std::vector<BlockId> table) : blocks(std::move(table)), prompt_length(prompt) {
    for (int i = 0; i < prompt; ++i) tokens.push_back((i * 37 + prompt) % 100);
    sampling.temperature = 0;
    sampling.top_logprobs = 3;
  }
  BatchItem Next(int32_t chunk) const {
    BatchItem item;
    item.tokens = tokens;
    item.prompt_length = prompt_length;
    item.start = computed;
    item.count = std::min<int32_t>(chunk, static_cast<int32_t>(tokens.size()) - computed);
    item.block_table = blocks;
    item.sample = computed + item.count == static_cast<int32_t>(tokens.size());
    item.sampling = &sampling;
    return item;
  }
  void Commit(const BatchItem& item, const StepOutput::Item& output) {
    computed += item.count;
    if (!item.sample) return;
    tokens.push_back(output.sampled.token);
    logprobs.push_back(output.sampled.logprob);
  }
  std::vector<TokenId> generated() const { return {tokens.begin() + prompt_length, tokens.end()}; }

  std::vector<TokenId> tokens;
  std::vector<BlockId> blocks;
  int32_t prompt_length;
  int32_t computed = 0;
  SamplingParams sampling;
  std::vector<float> logprobs;
};

std::vector<BlockId> Blocks(int first, int count) {
  std::vector<BlockId> blocks(count);
  std::iota(blocks.rbegin(), blocks.rend(), first);
  return blocks;
}

void Step(Engine& engine, std::vector<Sequence*> sequences, int32_t chunk, LayerGroupSink* sink = nullptr) {
  Batch batch;
  for (const Sequence* sequence : sequences) batch.items.push_back(sequence->Next(chunk));
  const absl::StatusOr<StepOutput> output = engine.Run(batch, sink);
  ASSERT_TRUE(output.ok()) << output.status();
  ASSERT_EQ(output->items.size(), batch.items.size());
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i]->Commit(batch.items[i], output->items[i]);
}

void GenerateAlone(Engine& engine, Sequence& sequence, int tokens, int32_t chunk) {
  while (static_cast<int>(sequence.generated().size()) < tokens) {
    Step(engine, {&sequence}, chunk);
    if (testing::Test::HasFatalFailure()) return;
  }
}

class EngineContract : public testing::TestWithParam<Implementation> {
 protected:
  std::unique_ptr<Engine> Create(const EngineRequest& request = {}) {
    auto engine = GetParam().create(request);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
};

TEST_P(EngineContract, InfoSaysWhatItIs) {
  const auto engine = Create();
  const EngineInfo& info = engine->info();
  EXPECT_FALSE(info.backend.empty());
  EXPECT_FALSE(info.fingerprint.empty());
  EXPECT_EQ(info.kv.block_size, 16);
  EXPECT_EQ(info.num_blocks, 64);
  EXPECT_EQ(info.layer_group, 2);
  EXPECT_GT(info.vocabulary, 100);
  EXPECT_GT(info.max_model_len, 200);
  const KvMemory memory = engine->kv_memory();
  EXPECT_NE(memory.base, nullptr);
  EXPECT_EQ(memory.bytes, info.num_blocks * info.kv.block_bytes());
}

TEST_P(EngineContract, FingerprintsTellModelsAndLayoutsApart) {
  const std::string same = Create()->info().fingerprint;
  EXPECT_EQ(Create()->info().fingerprint, same);
  EXPECT_NE(Create({.block_size = 32})->info().fingerprint, same);
  EXPECT_NE(Create({.seed = 2})->info().fingerprint, same);
}

TEST_P(EngineContract, SameTokensInAnyChunkBlockAndBatch) {
  const auto engine = Create();
  Sequence alone(50, Blocks(0, 5));
  GenerateAlone(*engine, alone, 12, 64);
  for (int32_t chunk : {1, 16, 19}) {
    Sequence again(50, Blocks(9, 5));
    GenerateAlone(*engine, again, 12, chunk);
    EXPECT_EQ(again.generated(), alone.generated()) << "chunk " << chunk;
    EXPECT_EQ(again.logprobs, alone.logprobs) << "chunk " << chunk;
  }
  const auto other = Create({.block_size = 8, .num_blocks = 128});
  Sequence in_small_blocks(50, Blocks(3, 9));
  GenerateAlone(*other, in_small_blocks, 12, 24);
  EXPECT_EQ(in_small_blocks.generated(), alone.generated());

  Sequence in_company(50, Blocks(0, 5)), first(21, Blocks(10, 4)), second(3, Blocks(20, 3));
  for (int step = 0; step < 15; ++step) Step(*engine, {&first, &in_company, &second}, 17);
  ASSERT_GE(in_company.generated().size(), 12u);
  EXPECT_TRUE(std::equal(alone.tokens.begin(), alone.tokens.begin() + 62, in_company.tokens.begin()));
}

TEST_P(EngineContract, SamplingIsKeyedBySeed) {
  const auto engine = Create();
  auto generate = [&](uint64_t seed, int32_t choice) {
    Sequence sequence(9, Blocks(0, 3));
    sequence.sampling.temperature = 1.5f;
    sequence.sampling.seed = seed;
    sequence.sampling.choice = choice;
    GenerateAlone(*engine, sequence, 12, 64);
    return sequence.generated();
  };
  const std::vector<TokenId> tokens = generate(5, 0);
  EXPECT_EQ(generate(5, 0), tokens);
  EXPECT_NE(generate(6, 0), tokens);
  EXPECT_NE(generate(5, 1), tokens);
}

class RecordingSink : public LayerGroupSink {
 public:
  explicit RecordingSink(Engine& engine) : engine_(engine) {}
  void OnLayersDone(const Batch& batch, int32_t begin, int32_t end, void* event) override {
    groups.emplace_back(begin, end);
    if (event != nullptr || engine_.kv_memory().shareable_fd < 0) return;
    // What must be there by now: every plane of the group, of the batch's first token.
    const KvLayout& kv = engine_.info().kv;
    const BatchItem& item = batch.items[0];
    const uint8_t* block = engine_.kv_memory().base + item.block_table[item.start / kv.block_size] * kv.block_bytes();
    for (int32_t layer = begin; layer < end; ++layer) {
      for (int32_t head = 0; head < kv.num_kv_heads; ++head) {
        for (int32_t v = 0; v < 2; ++v) {
          const uint8_t* row = block + kv.PlaneOffset(head, layer, v) + item.start % kv.block_size * kv.row_bytes();
          planes.emplace_back(row, row + kv.row_bytes());
        }
      }
    }
  }
  std::vector<std::pair<int32_t, int32_t>> groups;
  std::vector<std::vector<uint8_t>> planes;

 private:
  Engine& engine_;
};

TEST_P(EngineContract, SinkHearsEveryGroupOnceAndInOrder) {
  const auto engine = Create();
  RecordingSink sink(*engine);
  Sequence sequence(20, Blocks(0, 2));
  Step(*engine, {&sequence}, 20, &sink);
  int32_t expected = 0;
  for (const auto& [begin, end] : sink.groups) {
    EXPECT_EQ(begin, expected);
    EXPECT_LE(end, begin + 2);
    expected = end;
  }
  EXPECT_EQ(expected, engine->info().kv.num_layers);
  // The planes were final when the sink saw them.
  const KvLayout& kv = engine->info().kv;
  size_t i = 0;
  for (const std::vector<uint8_t>& plane : sink.planes) {
    const int32_t layer = static_cast<int32_t>(i / (2 * kv.num_kv_heads));
    const int32_t head = static_cast<int32_t>(i / 2 % kv.num_kv_heads);
    const uint8_t* row = engine->kv_memory().base + sequence.blocks[0] * kv.block_bytes() +
                         kv.PlaneOffset(head, layer, static_cast<int32_t>(i % 2));
    EXPECT_EQ(std::memcmp(plane.data(), row, plane.size()), 0) << layer << " " << head;
    EXPECT_TRUE(std::ranges::any_of(plane, [](uint8_t byte) { return byte != 0; }));
    ++i;
  }
}

TEST_P(EngineContract, BlocksMoveBetweenEngines) {
  const auto prefill = Create();
  const auto decode = Create();
  if (prefill->kv_memory().shareable_fd < 0) GTEST_SKIP() << "not host memory";
  Sequence sequence(40, Blocks(0, 5));
  GenerateAlone(*prefill, sequence, 1, 64);
  Sequence moved = sequence;
  moved.blocks = Blocks(30, 5);
  const int64_t bytes = prefill->info().kv.block_bytes();
  for (int i = 0; i < 5; ++i) {
    std::memcpy(decode->kv_memory().base + moved.blocks[i] * bytes,
                prefill->kv_memory().base + sequence.blocks[i] * bytes, bytes);
  }
  GenerateAlone(*prefill, sequence, 10, 1);
  GenerateAlone(*decode, moved, 10, 1);
  EXPECT_EQ(moved.generated(), sequence.generated());
  EXPECT_EQ(moved.logprobs, sequence.logprobs);
}

TEST_P(EngineContract, CopyOnWrite) {
  const auto engine = Create();
  Sequence sequence(40, Blocks(0, 5));
  GenerateAlone(*engine, sequence, 1, 64);
  Sequence copy = sequence;
  copy.blocks[2] = 50;
  copy.blocks[3] = 51;
  copy.blocks[4] = 52;
  ASSERT_TRUE(engine->CopyBlock(sequence.blocks[2], 50).ok());
  GenerateAlone(*engine, copy, 8, 1);
  GenerateAlone(*engine, sequence, 8, 1);
  EXPECT_EQ(copy.generated(), sequence.generated());
  EXPECT_FALSE(engine->CopyBlock(0, engine->info().num_blocks).ok());
}

TEST_P(EngineContract, StepsAreCollectedOnceEach) {
  const auto engine = Create();
  EXPECT_TRUE(absl::IsFailedPrecondition(engine->Collect().status()));
  const Sequence sequence(20, Blocks(0, 2));
  Batch batch;
  batch.items.push_back(sequence.Next(20));
  const int32_t most = engine->info().steps_in_flight;
  ASSERT_TRUE(most == 1 || most == 2);
  for (int32_t i = 0; i < most; ++i) EXPECT_TRUE(engine->Submit(batch, nullptr).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(engine->Submit(batch, nullptr)));
  const auto first = engine->Collect();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT(first->duration_us, 0);
  for (int32_t i = 1; i < most; ++i) EXPECT_TRUE(engine->Collect().ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(engine->Collect().status()));
}

TEST_P(EngineContract, RefusesImpossibleBatches) {
  const auto engine = Create();
  const Sequence sequence(20, Blocks(0, 2));
  auto run = [&](const std::function<void(BatchItem&)>& change) {
    Batch batch;
    batch.items.push_back(sequence.Next(20));
    change(batch.items[0]);
    return engine->Run(batch, nullptr).status();
  };
  EXPECT_TRUE(run([](BatchItem&) {}).ok());
  EXPECT_FALSE(engine->Run(Batch(), nullptr).ok());
  EXPECT_FALSE(run([](BatchItem& item) { item.count = 0; }).ok());
  EXPECT_FALSE(run([](BatchItem& item) { item.start = -1; }).ok());
  EXPECT_FALSE(run([](BatchItem& item) { item.count = 21; }).ok());
  EXPECT_FALSE(run([](BatchItem& item) { item.block_table = item.block_table.first(1); }).ok());
  EXPECT_FALSE(run([](BatchItem& item) { item.sampling = nullptr; }).ok());
  const std::vector<BlockId> outside = {0, 64};
  EXPECT_FALSE(run([&](BatchItem& item) { item.block_table = outside; }).ok());
  EXPECT_FALSE(run([](BatchItem& item) {
                 item.start = 20;
                 item.count = 1;
                 item.sampled_by = 0;
               }).ok())
      << "no step is in flight";
  std::vector<TokenId> tokens = sequence.tokens;
  tokens[7] = engine->info().vocabulary;
  EXPECT_FALSE(run([&](BatchItem& item) { item.tokens = tokens; }).ok());
  const absl::Status status = run([&](BatchItem& item) { item.tokens = tokens; });
  EXPECT_NE(Message(status).find("batch item 0"), std::string_view::npos) << status;
}

// A small Llama with made-up weights.
absl::StatusOr<Model> SmallModel(uint64_t seed) {
  ModelParts parts;
  ModelConfig& config = parts.config;
  config.architecture = "LlamaForCausalLM";
  config.num_layers = 5;
  config.hidden_size = 128;
  config.intermediate_size = 160;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.vocabulary = 211;
  config.max_position = 512;
  config.eos = {2};
  config.dtype = DType::kF32;
  config.rope_inverse_frequencies = RopeInverseFrequencies(config.head_dim, config.rope_theta);
  BATON_RETURN_IF_ERROR(MakeDummyWeights(seed, parts));
  return Model::Create(std::move(parts), "small");
}

Implementation Llama(const std::string& instruction_set, int32_t threads) {
  auto create = [=](const EngineRequest& request) -> absl::StatusOr<std::unique_ptr<Engine>> {
    BATON_ASSIGN_OR_RETURN(const Model model, SmallModel(request.seed));
    BATON_ASSIGN_OR_RETURN(auto backend, CreateCpuBackend({threads, instruction_set}));
    EngineOptions options;
    options.block_size = request.block_size;
    options.layer_group = request.layer_group;
    options.kv_bytes = int64_t{request.num_blocks} * request.block_size * 2 * 5 * 2 * 32 * 2;
    options.max_batch_tokens = 128;
    options.max_sequences = 8;
    return CreateLlamaEngine(model, std::move(backend), options);
  };
  return {Cat("llama_", instruction_set, "_", threads), create};
}

// Every code path of the CPU that this machine has.
std::vector<Implementation> Engines() {
  std::vector<Implementation> all;
  for (const std::string& path : CpuInstructionSets()) all.push_back(Llama(path, path == "plain" ? 1 : 2));
  return all;
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineContract, testing::ValuesIn(Engines()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baton
