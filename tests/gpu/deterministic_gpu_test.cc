// Folders: engine
// --deterministic: a request's tokens and log-probabilities have the same bits alone, in a batch, in other chunks, with
// a part of the prompt in the cache, in other blocks, and when what was decoded is prefilled again.
#include <gtest/gtest.h>

#include <numeric>

#include "engine_gpu_support.h"

namespace baton {
namespace {

constexpr int kGenerated = 24;
constexpr CudaOptions kDeterministic{.deterministic = true};

struct Kind {
  const char* preset;
  int32_t layers;
  DType kv;
};

// What runs beside a request: decode rows of many lengths, and a prompt's chunk now and then.
class Neighbours {
 public:
  Neighbours(const Engine& engine, int count, int32_t first_number) : random_(first_number) {
    for (int i = 0; i < count; ++i) {
      sequences_.emplace_back(engine, RandomPrompt(engine, 1 + static_cast<int32_t>(random_() % 700), 70 + i), 0);
      Sequence& sequence = sequences_.back();
      std::iota(sequence.table.begin(), sequence.table.end(), first_number + 8 * i);  // at most 6 blocks each
    }
  }
  void Prefill(Engine& engine) {
    for (const Sequence& sequence : sequences_) baton::Prefill(engine, sequence, 1024);
  }
  void AddTo(Batch& batch, int32_t room) {
    const size_t some = random_() % sequences_.size() + 1;
    for (size_t i = 0; i < some && room > 0; ++i) {
      const Sequence& sequence = sequences_[i];
      const int32_t most = random_() % 8 == 0 ? std::min(room, sequence.prompt_length) : 1;
      const int32_t count = 1 + static_cast<int32_t>(random_() % most);
      batch.items.push_back(sequence.Item(sequence.prompt_length - count, count, true));
      room -= count;
    }
    std::shuffle(batch.items.begin(), batch.items.end(), random_);
  }

 private:
  std::mt19937 random_;
  std::vector<Sequence> sequences_;
};

// Computes tokens [start, start + count) of the sequence in one step, whoever is beside it.
SampledToken Step(Engine& engine, const Sequence& sequence, int32_t start, int32_t count, Neighbours* beside) {
  Batch batch;
  batch.items.push_back(sequence.Item(start, count, true));
  if (beside != nullptr) beside->AddTo(batch, engine.info().max_batch_tokens - count);
  const StepOutput output = RunBatch(engine, batch);
  for (size_t i = 0; i < output.items.size(); ++i) {
    if (batch.items[i].sampling == &sequence.sampling) return output.items[i].sampled;
  }
  return {};
}

// From `start` on (what is before is in the cache) in chunks; then decodes until there are kGenerated tokens in all.
std::vector<SampledToken> Generate(Engine& engine, Sequence& sequence, int32_t start, int32_t chunk,
                                   Neighbours* beside = nullptr) {
  std::vector<SampledToken> generated;
  const auto known = static_cast<int32_t>(sequence.tokens.size());
  const int32_t end = sequence.prompt_length + kGenerated;
  for (int32_t at = start; at < end;) {
    const bool decodes = at >= known;
    const int32_t count = decodes ? 1 : std::min(chunk, known - at);
    const SampledToken token = Step(engine, sequence, at, count, beside);
    at += count;
    if (at < known) continue;
    generated.push_back(token);
    sequence.tokens.push_back(token.token);
    if (static_cast<int32_t>(sequence.tokens.size()) == end) break;
  }
  return generated;
}

void ExpectSame(const std::vector<SampledToken>& expected, const std::vector<SampledToken>& found, const char* what) {
  ASSERT_GE(expected.size(), found.size()) << what;
  ASSERT_FALSE(found.empty()) << what;
  const size_t skipped = expected.size() - found.size();  // a replay had them already
  for (size_t i = 0; i < found.size(); ++i) {
    const SampledToken& a = expected[skipped + i];
    const SampledToken& b = found[i];
    ASSERT_EQ(a.token, b.token) << what << ", token " << skipped + i;
    ASSERT_EQ(a.logprob, b.logprob) << what << ", token " << skipped + i;
    ASSERT_EQ(a.top_logprobs.size(), b.top_logprobs.size()) << what;
    for (size_t j = 0; j < a.top_logprobs.size(); ++j) {
      ASSERT_EQ(a.top_logprobs[j].token, b.top_logprobs[j].token) << what << ", token " << skipped + i;
      ASSERT_EQ(a.top_logprobs[j].logprob, b.top_logprobs[j].logprob) << what << ", token " << skipped + i;
    }
  }
}

class DeterministicTest : public testing::TestWithParam<Kind> {};

TEST_P(DeterministicTest, TheSameBitsHoweverARequestIsComputed) {
  const Kind& kind = GetParam();
  const Model model = MakeModel(kind.preset, kind.layers, 8192);
  auto engine = MakeEngine(model, true, kind.kv, kDeterministic);
  auto other = MakeEngine(model, true, kind.kv, {.graphs = false, .deterministic = true});
  EXPECT_EQ(engine->info().fingerprint, other->info().fingerprint);
  Neighbours beside(*engine, 32, 200);  // blocks from 200 on
  beside.Prefill(*engine);
  for (const int32_t length : {1, 130, 1100, 2500}) {
    const auto prompt = RandomPrompt(*engine, length, 3 + length);
    auto sequence = [&](int number) {
      Sequence made(*engine, prompt, number);
      made.sampling.temperature = length == 1100 ? 0.8f : 0.0f;
      made.sampling.top_p = length == 1100 ? 0.95f : 1.0f;
      made.sampling.seed = 17;
      return made;
    };
    Sequence alone = sequence(0);
    const auto expected = Generate(*engine, alone, 0, 1024);
    auto expect_same = [&](Engine& by, int number, int32_t chunk, Neighbours* neighbours, const char* what) {
      Sequence again = sequence(number);
      ExpectSame(expected, Generate(by, again, 0, chunk, neighbours), what);
    };
    expect_same(*engine, 1, 128, nullptr, "chunks of a block");
    expect_same(*engine, 2, 37, nullptr, "odd chunks");
    expect_same(*engine, 3, 1024, &beside, "a batch");
    expect_same(*engine, 4, 50, &beside, "chunks in a batch");
    expect_same(*engine, 5, 700, nullptr, "other blocks");
    expect_same(*other, 0, 1000, nullptr, "another engine, without graphs");

    Sequence hit = alone;  // the prompt's whole blocks are in the cache
    hit.tokens.resize(length);
    const int32_t cached = (length - 1) / 128 * 128;
    if (cached > 0) ExpectSame(expected, Generate(*engine, hit, cached, 1024, &beside), "a prefix in the cache");

    for (const int had : {1, 13}) {  // prompt and tokens so far are one prefill elsewhere
      Sequence replayed = sequence(6);
      for (int i = 0; i < had; ++i) replayed.tokens.push_back(expected[i].token);
      ExpectSame(expected, Generate(*other, replayed, 0, 300), "a replay");
    }
  }
}

// Log-probabilities of a prompt's tokens, in two chunkings.
TEST_P(DeterministicTest, PromptLogprobsDoNotDependOnTheChunks) {
  const Kind& kind = GetParam();
  const Model model = MakeModel(kind.preset, kind.layers, 8192);
  auto engine = MakeEngine(model, true, kind.kv, kDeterministic);
  const Sequence sequence(*engine, RandomPrompt(*engine, 300, 4), 0);
  std::vector<float> scores[2];
  for (const int32_t chunk : {300, 77}) {
    for (int32_t at = 0; at < 300; at += chunk) {
      Batch batch;
      batch.items.push_back(sequence.Item(at, std::min(chunk, 300 - at), at + chunk >= 300));
      batch.items[0].prompt_logprobs = true;
      const StepOutput output = RunBatch(*engine, batch);
      ASSERT_EQ(output.items.size(), 1u);
      for (const SampledToken& score : output.items[0].prompt_logprobs) scores[chunk == 77].push_back(score.logprob);
    }
  }
  EXPECT_EQ(scores[0].size(), 299u);
  EXPECT_EQ(scores[0], scores[1]);
}

// It is the same model: what the ordinary kernels give is near.
TEST_P(DeterministicTest, AgreesWithTheOrdinaryKernels) {
  const Kind& kind = GetParam();
  const Model model = MakeModel(kind.preset, kind.layers, 8192);
  auto deterministic = MakeEngine(model, true, kind.kv, kDeterministic);
  auto ordinary = MakeEngine(model, true, kind.kv);
  EXPECT_NE(deterministic->info().fingerprint, ordinary->info().fingerprint);
  const auto prompt = RandomPrompt(*ordinary, 300, 9);
  const SampledToken a = Prefill(*deterministic, Sequence(*deterministic, prompt, 0), 1024);
  const SampledToken b = Prefill(*ordinary, Sequence(*ordinary, prompt, 0), 1024);
  int shared = 0;
  for (const TokenLogprob& x : a.top_logprobs) {
    for (const TokenLogprob& y : b.top_logprobs) {
      if (x.token != y.token) continue;
      ++shared;
      EXPECT_NEAR(x.logprob, y.logprob, 0.3);
    }
  }
  EXPECT_GE(shared, 12);
}

INSTANTIATE_TEST_SUITE_P(Models, DeterministicTest,
                         testing::Values(Kind{"llama-8b-fp8", 2, DType::kF8E4M3}, Kind{"llama-8b-fp8", 2, DType::kBF16},
                                         Kind{"smollm2-135m", 8, DType::kBF16}),
                         [](const auto& info) { return std::string("Kind") + std::to_string(info.index); });

}  // namespace
}  // namespace baton
