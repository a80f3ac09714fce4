#include "app/engine_factory.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>

#include "app/backend_choice.h"
#include "base/log.h"
#include "engine/llama.h"
#include "model/model.h"

namespace baton {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int32_t kDefaultSequences = 64;
constexpr int32_t kDefaultBatchTokens = 512;
constexpr int32_t kCalibrationTokens = 128;
// A chunk of prefill holds up everybody's next token, and a cancellation, for as long as it lasts; attention over a
// long context makes it longer than the measured one, so the aim is well under the promised 250 ms.
constexpr double kChunkSeconds = 0.12;

// Of the deployment, from its supervisor: without it nobody outside can tell which tokens share a block's name.
uint64_t DeploymentSecret() {
  const char* secret = std::getenv(kHashSecretVariable);
  return secret == nullptr ? 0 : std::strtoull(secret, nullptr, 16);
}

// Runs one prefill of the first blocks to see how fast this engine is here: tokens a second.
absl::StatusOr<double> MeasurePrefill(Engine& engine) {
  const EngineInfo& info = engine.info();
  const int32_t count =
      std::min({kCalibrationTokens, info.max_batch_tokens, info.max_model_len, info.num_blocks * info.kv.block_size});
  std::vector<TokenId> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = (i * 7919) % info.vocabulary;
  std::vector<BlockId> blocks(info.kv.BlocksFor(count));
  std::iota(blocks.begin(), blocks.end(), 0);
  const SamplingParams sampling{.temperature = 0};
  Batch batch;
  batch.items.push_back({.tokens = tokens,
                         .prompt_length = count,
                         .count = count,
                         .block_table = blocks,
                         .sample = true,
                         .sampling = &sampling});
  int64_t best_us = INT64_MAX;
  for (int repetition = 0; repetition < 2; ++repetition) {  // the first one also touches memory for the first time
    BATON_ASSIGN_OR_RETURN(const StepOutput output, engine.Run(batch, nullptr));
    best_us = std::min(best_us, std::max<int64_t>(1, output.duration_us));
  }
  return 1e6 * count / static_cast<double>(best_us);
}

// Sequences of one step: as asked for, or as many as leave room for a block of prefill beside their decode rows.
int32_t MaxSequences(const EngineFlags& flags, int32_t block_size) {
  if (flags.max_num_seqs > 0) return flags.max_num_seqs;
  if (flags.max_num_batched_tokens == 0) return kDefaultSequences;
  return std::clamp(flags.max_num_batched_tokens - block_size, 1, kDefaultSequences);
}

// `rate`: measured prefill, tokens a second; used where the flags do not say how long a step may be.
SchedulerOptions SchedulerFor(const EngineFlags& flags, const EngineInfo& info, double rate, std::vector<TokenId> eos) {
  const int32_t beside_decode = info.max_batch_tokens - info.max_sequences;
  const int32_t measured = std::clamp(static_cast<int32_t>(rate * kChunkSeconds), info.kv.block_size, beside_decode);
  const bool given = flags.max_num_batched_tokens > 0;
  return {.max_batch_tokens = given ? flags.max_num_batched_tokens : measured + info.max_sequences,
          .max_sequences = info.max_sequences,
          .prefill_chunk_tokens = given ? flags.max_num_batched_tokens : measured,
          .prefill_budget = flags.prefill_budget,
          .max_model_len = info.max_model_len,
          .prefix_caching = !flags.no_prefix_caching,
          .hash_secret = DeploymentSecret(),
          .fingerprint = info.fingerprint,
          .eos = std::move(eos)};
}

absl::StatusOr<LoadedEngine> LoadSimulated(const EngineFlags& flags) {
  BATON_ASSIGN_OR_RETURN(SimOptions options, ParseSimProfile(flags.sim));
  if (flags.block_size > 0) options.block_size = flags.block_size;
  if (flags.max_model_len > 0) options.max_model_len = flags.max_model_len;
  if (flags.max_num_batched_tokens > 0) options.max_batch_tokens = flags.max_num_batched_tokens;
  options.max_sequences = MaxSequences(flags, options.block_size);
  BATON_ASSIGN_OR_RETURN(auto engine, CreateSimEngine(options));
  EngineFlags chunked = flags;
  if (chunked.max_num_batched_tokens == 0) chunked.max_num_batched_tokens = kDefaultBatchTokens + options.max_sequences;
  SchedulerOptions scheduler = SchedulerFor(chunked, engine->info(), 0, {});
  const double prefill_us = options.profile.prefill_us_per_token;
  return LoadedEngine{std::move(engine), std::move(scheduler), prefill_us > 0 ? 1e6 / prefill_us : 0};
}

absl::StatusOr<DType> KvType(const std::string& name) {
  if (name == "f16") return DType::kF16;
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "fp8") return DType::kF8E4M3;
  return InvalidArgument("KV cache type '", name, "': expected f16, f32, bf16 or fp8");
}

EngineOptions OptionsFor(const EngineFlags& flags, const Model& model, const BackendChoice& choice,
                         std::function<void(double)> on_progress) {
  EngineOptions options{.kv_bytes = choice.kv_bytes,
                        .block_size = flags.block_size,
                        .max_model_len = flags.max_model_len,
                        .on_progress = std::move(on_progress)};
  if (flags.kv_cache_gib > 0) options.kv_bytes = static_cast<int64_t>(flags.kv_cache_gib * kGib);
  const int32_t block_size = flags.block_size > 0 ? flags.block_size : choice.backend->info().default_block_size;
  options.max_sequences = MaxSequences(flags, block_size);
  options.max_batch_tokens =
      flags.max_num_batched_tokens > 0 ? flags.max_num_batched_tokens : kDefaultBatchTokens + options.max_sequences;
  options.end_tokens = model.generation().eos.empty() ? model.config().eos : model.generation().eos;
  return options;
}

}  // namespace

absl::StatusOr<SimOptions> ParseSimProfile(const std::string& text) {
  SimOptions options;
  if (text == "instant") return options;
  const std::map<std::string, double*> rates{{"step_us", &options.profile.step_us},
                                             {"prefill_us", &options.profile.prefill_us_per_token},
                                             {"decode_us", &options.profile.decode_us_per_sequence},
                                             {"context_us", &options.profile.decode_us_per_context_token}};
  const std::map<std::string, TokenId*> tokens{{"crash_token", &options.faults.crash_token},
                                               {"hang_token", &options.faults.hang_token},
                                               {"fail_token", &options.faults.fail_token}};
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string pair = text.substr(begin, end - begin);
    const size_t equals = pair.find('=');
    char* rest = nullptr;
    const double value = equals == std::string::npos ? -1 : std::strtod(pair.c_str() + equals + 1, &rest);
    const std::string key = pair.substr(0, equals);
    const bool known = rates.contains(key) || tokens.contains(key) || key == "blocks";
    if (!known || value < 0 || rest == nullptr || *rest != 0) {
      return InvalidArgument(
          "--sim: expected 'instant' or key=number of step_us, prefill_us, decode_us, context_us, blocks, crash_token, "
          "hang_token, fail_token; found '",
          pair, "'");
    }
    if (key == "blocks") {
      options.num_blocks = static_cast<int32_t>(std::clamp(value, 1.0, 1e7));
    } else if (tokens.contains(key)) {
      *tokens.at(key) = static_cast<TokenId>(std::min(value, 1e9));
    } else {
      *rates.at(key) = value;
    }
    begin = end + 1;
  }
  return options;
}

absl::StatusOr<LoadedEngine> LoadEngine(const EngineFlags& flags, std::function<void(double fraction)> on_progress) {
  if (!flags.sim.empty()) return LoadSimulated(flags);
  BATON_ASSIGN_OR_RETURN(
      const Model model,
      LoadModel(flags.model, flags.load_format == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto, flags.seed));
  BATON_ASSIGN_OR_RETURN(BackendChoice choice, ChooseBackend(flags, model.weight_bytes()));
  EngineOptions options = OptionsFor(flags, model, choice, std::move(on_progress));
  if (flags.kv_cache_dtype != "auto") {
    BATON_ASSIGN_OR_RETURN(options.kv_dtype, KvType(flags.kv_cache_dtype));
  }
  BATON_ASSIGN_OR_RETURN(auto engine, CreateLlamaEngine(model, std::move(choice.backend), options));
  BATON_ASSIGN_OR_RETURN(const double rate, MeasurePrefill(*engine));
  LogDebug("prefill measures ", static_cast<int64_t>(rate), " tokens/s");
  SchedulerOptions scheduler = SchedulerFor(flags, engine->info(), rate, options.end_tokens);
  return LoadedEngine{std::move(engine), std::move(scheduler), rate};
}

}  // namespace baton
