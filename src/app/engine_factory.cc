#include "app/engine_factory.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <map>
#include <numeric>

#include "app/backend_choice.h"
#include "base/log.h"
#include "device/machine.h"
#include "engine/expand_weight.h"
#include "engine/llama.h"
#include "model/model.h"

namespace baton {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int32_t kDefaultSequences = 64;
constexpr int32_t kDefaultBatchTokens = 512;
constexpr int32_t kCalibrationTokens = 128;
constexpr int32_t kCalibrationContext = 1024;
// On CPUs a step takes long, and who starts a server waits for it: few short steps, each measured once.
constexpr int32_t kCpuTokens[] = {1, 8, 32};
constexpr int32_t kCpuDecodeRows = 4;
constexpr int32_t kCpuContext = 512;
constexpr double kAgainUs = 10'000;  // a shorter step is measured twice
// A chunk of prefill holds up everybody's next token, and a cancellation, for as long as it lasts; attention over a
// long context makes it longer than the measured one, so the aim is well under the promised 250 ms.
constexpr double kChunkSeconds = 0.12;

// Runs one step of the first blocks of the KV cache, whatever they hold, and returns its microseconds. Decode rows read
// the same blocks for their context, and each writes a block of its own.
class StepMeter {
 public:
  explicit StepMeter(Engine& engine) : engine_(engine) {
    const EngineInfo& info = engine.info();
    tokens_.resize(info.max_model_len);
    for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<TokenId>((i * 7919) % info.vocabulary);
  }

  absl::StatusOr<double> Measure(const StepShape& shape) {
    const KvLayout& kv = engine_.info().kv;
    tables_.clear();
    Batch batch;
    const auto context = static_cast<int32_t>(shape.decode_rows > 0 ? shape.decode_context / shape.decode_rows : 0);
    const int32_t shared = context / kv.block_size;
    for (int32_t row = 0; row < shape.decode_rows; ++row) {
      std::vector<BlockId> table(shared);
      std::iota(table.begin(), table.end(), 0);
      table.push_back(shared + row);
      AddItem(batch, shared * kv.block_size, 1, std::move(table));
    }
    if (shape.prompt_tokens > 0) {
      const auto start = static_cast<int32_t>(shape.prompt_context), count = static_cast<int32_t>(shape.prompt_tokens);
      std::vector<BlockId> table(kv.BlocksFor(start + count));
      std::iota(table.begin(), table.end(), static_cast<BlockId>(shared + shape.decode_rows));
      AddItem(batch, start, count, std::move(table));
    }
    BATON_ASSIGN_OR_RETURN(const StepOutput output, engine_.Run(batch, nullptr));
    return static_cast<double>(std::max<int64_t>(1, output.duration_us));
  }

  // Context, in tokens, that fits beside `rows` decode rows or a chunk of `chunk` tokens.
  int32_t RoomForContext(int32_t rows, int32_t chunk) const {
    const EngineInfo& info = engine_.info();
    const int32_t blocks = info.num_blocks - std::max(rows, info.kv.BlocksFor(chunk));
    const int64_t tokens = std::min<int64_t>(int64_t{blocks} * info.kv.block_size, info.max_model_len - chunk - 1);
    return static_cast<int32_t>(std::max<int64_t>(0, tokens / info.kv.block_size * info.kv.block_size));
  }

 private:
  void AddItem(Batch& batch, int32_t start, int32_t count, std::vector<BlockId> table) {
    tables_.push_back(std::move(table));  // a deque: earlier spans stay valid
    batch.items.push_back({.sequence = {batch.items.size() + 1},
                           .tokens = tokens_,
                           .prompt_length = static_cast<int32_t>(tokens_.size()),
                           .start = start,
                           .count = count,
                           .block_table = tables_.back(),
                           .sample = true,
                           .sampling = &sampling_});
  }

  Engine& engine_;
  std::vector<TokenId> tokens_;
  std::deque<std::vector<BlockId>> tables_;
  const SamplingParams sampling_{.temperature = 0};
};

int32_t LargestStep(const EngineInfo& info) {
  return std::min({info.max_batch_tokens, info.max_model_len, info.num_blocks * info.kv.block_size});
}

// How fast this engine is here: tokens a second of a prefill.
absl::StatusOr<double> MeasurePrefill(Engine& engine) {
  const EngineInfo& info = engine.info();
  const int32_t count = std::min(kCalibrationTokens, LargestStep(info));
  StepMeter meter(engine);
  double best_us = INFINITY;
  for (int repetition = 0; repetition < 2; ++repetition) {  // the first one also touches memory for the first time
    BATON_ASSIGN_OR_RETURN(const double us, meter.Measure({.prompt_tokens = count}));
    best_us = std::min(best_us, us);
  }
  return 1e6 * count / best_us;
}

// What the dial needs to know of a GPU. Products jump where a tile is full, so there are points on both sides of each
// multiple of 128.
absl::StatusOr<StepTimeTable> MeasureGpuSteps(Engine& engine, const SchedulerOptions& scheduler) {
  const EngineInfo& info = engine.info();
  const int32_t chunk = std::min(scheduler.prefill_chunk_tokens, LargestStep(info));
  StepTimePlan plan{.decode_rows = std::min({scheduler.max_sequences, info.num_blocks / 2, 64})};
  std::vector<int32_t> tokens{1, std::max(1, chunk / 8), std::max(1, chunk / 2), chunk};
  for (int32_t tile = 128; tile <= std::min(chunk, 1024); tile += 128) {
    tokens.push_back(tile);
    if (tile < chunk) tokens.push_back(tile + 1);
  }
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  plan.tokens = std::move(tokens);
  StepMeter meter(engine);
  plan.context = std::min(kCalibrationContext, meter.RoomForContext(plan.decode_rows, chunk));
  return MeasureStepTimes(plan, [&](const StepShape& shape) -> absl::StatusOr<double> {
    BATON_ASSIGN_OR_RETURN(const double first_us, meter.Measure(shape));
    // A machine may be busy for a moment; the first step of a shape also chooses kernels.
    BATON_ASSIGN_OR_RETURN(const double second_us, meter.Measure(shape));
    return std::min(first_us, second_us);
  });
}

// The same of a CPU, where products grow evenly: beyond 32 tokens the line goes on.
absl::StatusOr<StepTimeTable> MeasureCpuSteps(Engine& engine) {
  const EngineInfo& info = engine.info();
  StepTimePlan plan{.decode_rows = std::min({info.max_sequences, info.num_blocks / 2, kCpuDecodeRows})};
  for (const int32_t tokens : kCpuTokens) {
    if (plan.tokens.empty() || tokens <= LargestStep(info)) plan.tokens.push_back(tokens);
  }
  StepMeter meter(engine);
  plan.context = std::min(kCpuContext, meter.RoomForContext(plan.decode_rows, plan.tokens.back()));
  BATON_ASSIGN_OR_RETURN(StepTimeTable times,
                         MeasureStepTimes(plan, [&](const StepShape& shape) -> absl::StatusOr<double> {
                           BATON_ASSIGN_OR_RETURN(const double first_us, meter.Measure(shape));
                           if (first_us > kAgainUs) return first_us;
                           BATON_ASSIGN_OR_RETURN(const double second_us, meter.Measure(shape));
                           return std::min(first_us, second_us);
                         }));
  for (size_t i = times.products.size() - 1; i > 0; --i) {  // fewer tokens take no longer
    times.products[i - 1].us = std::min(times.products[i - 1].us, times.products[i].us);
  }
  return times;
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
          .run_ahead = info.steps_in_flight > 1,
          .hash_secret = DeploymentSecret(),
          .fingerprint = info.fingerprint,
          .eos = std::move(eos),
          .targets = flags.targets};
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
  const SimProfile& profile = options.profile;
  const double prefill_us = profile.prefill_us_per_token;
  // A profile is a table; one without any times says nothing.
  if (profile.step_us + prefill_us + profile.decode_us_per_sequence + profile.decode_us_per_context_token > 0) {
    scheduler.step_times = {
        .products = {{1, profile.step_us + prefill_us}, {1024, profile.step_us + 1024 * prefill_us}},
        .decode_row_us = profile.decode_us_per_sequence - prefill_us,
        .decode_context_us = profile.decode_us_per_context_token};
  }
  return LoadedEngine{std::move(engine), std::move(scheduler), prefill_us > 0 ? 1e6 / prefill_us : 0};
}

absl::StatusOr<DType> KvType(const std::string& name) {
  if (name == "f16") return DType::kF16;
  if (name == "f32") return DType::kF32;
  if (name == "int8") return DType::kI8;
  if (name == "bf16") return DType::kBF16;
  if (name == "fp8") return DType::kF8E4M3;
  return InvalidArgument("KV cache type '", name, "': expected f16, f32, int8, bf16 or fp8");
}

std::vector<TokenId> EndTokens(const Model& model) {
  return model.generation().eos.empty() ? model.config().eos : model.generation().eos;
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
  options.end_tokens = EndTokens(model);
  return options;
}

// Whole blocks for `tokens` tokens.
int64_t KvBytes(int64_t tokens, const Model& model, const Backend& backend, const EngineOptions& options) {
  const KvLayout layout{.num_kv_heads = model.config().num_kv_heads,
                        .num_layers = model.config().num_layers,
                        .block_size = options.block_size > 0 ? options.block_size : backend.info().default_block_size,
                        .head_dim = model.config().head_dim,
                        .dtype = options.kv_dtype.value_or(backend.info().default_kv_dtype)};
  return layout.BlocksFor(tokens) * layout.block_bytes();
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
    const bool known =
        rates.contains(key) || tokens.contains(key) || key == "blocks" || key == "vocabulary" || key == "ahead";
    if (!known || value < 0 || rest == nullptr || *rest != 0) {
      return InvalidArgument(
          "--sim: expected 'instant' or key=number of step_us, prefill_us, decode_us, context_us, blocks, vocabulary, "
          "ahead, crash_token, hang_token, fail_token; found '",
          pair, "'");
    }
    if (key == "blocks") {
      options.num_blocks = static_cast<int32_t>(std::clamp(value, 1.0, 1e7));
    } else if (key == "vocabulary") {
      options.vocabulary = static_cast<int32_t>(std::clamp(value, 512.0, 1e7));
    } else if (key == "ahead") {
      options.run_ahead = value > 0;
    } else if (tokens.contains(key)) {
      *tokens.at(key) = static_cast<TokenId>(std::min(value, 1e9));
    } else {
      *rates.at(key) = value;
    }
    begin = end + 1;
  }
  return options;
}

absl::StatusOr<Model> LoadModelFor(const EngineFlags& flags) {
  LoadFormat format = LoadFormat::kAuto;
  if (flags.load_format == "dummy") format = UsesGpu(flags) ? LoadFormat::kDummyRecipes : LoadFormat::kDummy;
  return LoadModel(flags.model, format, flags.seed);
}

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const EngineFlags& flags, const Model& model, int64_t kv_tokens,
                                                     std::function<void(double fraction)> on_progress) {
  BATON_ASSIGN_OR_RETURN(BackendChoice choice, ChooseBackend(flags, ExpandedBytes(model, kCudaWeightTypes)));
  EngineOptions options = OptionsFor(flags, model, choice, std::move(on_progress));
  if (flags.kv_cache_dtype != "auto") {
    BATON_ASSIGN_OR_RETURN(options.kv_dtype, KvType(flags.kv_cache_dtype));
  }
  if (kv_tokens > 0) options.kv_bytes = KvBytes(kv_tokens, model, *choice.backend, options);
  return CreateLlamaEngine(model, std::move(choice.backend), options);
}

absl::StatusOr<LoadedEngine> LoadEngine(const EngineFlags& flags, std::function<void(double fraction)> on_progress) {
  if (!flags.sim.empty()) return LoadSimulated(flags);
  BATON_ASSIGN_OR_RETURN(const Model model, LoadModelFor(flags));
  BATON_ASSIGN_OR_RETURN(auto engine, CreateEngine(flags, model, 0, std::move(on_progress)));
  const bool gpu = engine->info().backend == "cuda";
  StepTimeTable times;
  double rate = 0;
  if (gpu) {
    BATON_ASSIGN_OR_RETURN(rate, MeasurePrefill(*engine));
  } else {
    LogDebug("huge pages: ", DescribeHugePages(ReadHugePages()));
    BATON_ASSIGN_OR_RETURN(times, MeasureCpuSteps(*engine));
    rate = 1e6 * kCalibrationTokens / std::max(1.0, times.StepUs({.prompt_tokens = kCalibrationTokens}));
  }
  LogDebug("prefill measures ", static_cast<int64_t>(rate), " tokens/s");
  SchedulerOptions scheduler = SchedulerFor(flags, engine->info(), rate, EndTokens(model));
  if (flags.prefill_budget < 0) {
    if (gpu) {
      BATON_ASSIGN_OR_RETURN(times, MeasureGpuSteps(*engine, scheduler));
    }
    BATON_RETURN_IF_ERROR(times.Validate());
    scheduler.step_times = std::move(times);
  }
  return LoadedEngine{std::move(engine), std::move(scheduler), rate};
}

}  // namespace baton
