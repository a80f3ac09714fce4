#include "bench/engine_timing.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <utility>

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kWarmUps = 3;  // the third step of a kind is the first that runs as later ones do
constexpr int kFewest = 3;   // timed runs of each kind, however long they take
constexpr int kMost = 50;
constexpr int kProfiles = 3;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0.0 : values[values.size() / 2];
}

int32_t PromptStart(const EngineBenchOptions& options) { return options.context / 2; }

class EngineBench {
 public:
  EngineBench(Engine& engine, const EngineBenchOptions& options)
      : engine_(engine),
        options_(options),
        needs_(NeedsOf(options)),
        blocks_each_(engine.info().kv.BlocksFor(needs_.context)) {}

  absl::Status Prepare();
  absl::Status FillContexts();
  absl::StatusOr<EngineBenchRow> Measure(std::string name, const BenchStep& step);

 private:
  BatchItem Item(int32_t sequence, int32_t start, int32_t count) const;
  Batch BatchOf(const BenchStep& step) const;
  bool RunsAhead(const BenchStep& step) const {
    return engine_.info().steps_in_flight > 1 && step.prompt_tokens == 0 && options_.context > 1;
  }
  absl::Status Time(const Batch& batch, bool ahead, EngineBenchRow& row);
  absl::Status Profile(Batch batch, EngineBenchRow& row);

  Engine& engine_;
  const EngineBenchOptions& options_;
  const EngineBenchNeeds needs_;
  const int32_t blocks_each_;
  std::vector<BlockId> blocks_;               // blocks_each_ for each sequence, in no order
  std::vector<std::vector<TokenId>> tokens_;  // of each sequence
  SamplingParams sampling_;
};

absl::Status EngineBench::Prepare() {
  const EngineInfo& info = engine_.info();
  const int32_t sequences = needs_.max_sequences;
  const int32_t blocks = std::max(sequences * blocks_each_, info.kv.BlocksFor(needs_.max_model_len));
  if (info.num_blocks < blocks || info.max_batch_tokens < needs_.max_batch_tokens || info.max_sequences < sequences ||
      info.max_model_len < needs_.max_model_len) {
    return InvalidArgument("these steps need ", blocks, " blocks for ", sequences, " sequences, ",
                           needs_.max_batch_tokens, " tokens in one step; the engine has ", info.num_blocks,
                           " blocks of ", info.kv.block_size, " tokens, ", info.max_sequences, " sequences, ",
                           info.max_batch_tokens, " tokens");
  }
  std::mt19937 random(1);
  blocks_.resize(info.num_blocks);
  std::iota(blocks_.begin(), blocks_.end(), 0);
  std::shuffle(blocks_.begin(), blocks_.end(), random);
  std::vector<TokenId> tokens(needs_.max_model_len);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % info.vocabulary);
  tokens_.assign(sequences, tokens);
  // The same context, but another newest token for each, so that rows differ.
  for (std::vector<TokenId>& mine : tokens_)
    mine[options_.context - 1] = static_cast<TokenId>(random() % info.vocabulary);
  sampling_.temperature = 0.8f;
  return absl::OkStatus();
}

// Computes the first sequence's keys and values, and copies them for the others: real contents at the price of one.
absl::Status EngineBench::FillContexts() {
  const int32_t chunk = std::min(engine_.info().max_batch_tokens, options_.context);
  for (int32_t at = 0; at < options_.context; at += chunk) {
    Batch batch;
    batch.items.push_back(Item(0, at, std::min(chunk, options_.context - at)));
    BATON_RETURN_IF_ERROR(engine_.Run(batch, nullptr).status());
  }
  const int32_t used = engine_.info().kv.BlocksFor(options_.context);
  for (int32_t sequence = 1; sequence < needs_.max_sequences; ++sequence) {
    for (int32_t i = 0; i < used; ++i) {
      BATON_RETURN_IF_ERROR(engine_.CopyBlock(blocks_[i], blocks_[sequence * blocks_each_ + i]));
    }
  }
  return absl::OkStatus();
}

BatchItem EngineBench::Item(int32_t sequence, int32_t start, int32_t count) const {
  return {.tokens = std::span(tokens_[sequence]).first(start + count),
          .prompt_length = start + count,
          .start = start,
          .count = count,
          .block_table =
              std::span(blocks_).subspan(int64_t{sequence} * blocks_each_, engine_.info().kv.BlocksFor(start + count)),
          .sample = true,
          .sampling = &sampling_};
}

Batch EngineBench::BatchOf(const BenchStep& step) const {
  Batch batch;
  for (int32_t i = 0; i < step.decode_rows; ++i) batch.items.push_back(Item(i, step.decode_context - 1, 1));
  if (step.prompt_tokens > 0) batch.items.push_back(Item(step.decode_rows, step.prompt_start, step.prompt_tokens));
  return batch;
}

// Decode steps run as in the step loop, one ahead: each is submitted while the one before runs, and takes its tokens
// from that one.
absl::Status EngineBench::Time(const Batch& batch, bool ahead, EngineBenchRow& row) {
  for (int i = 0; i < kWarmUps; ++i) BATON_RETURN_IF_ERROR(engine_.Run(batch, nullptr).status());
  Batch next = batch;
  for (size_t i = 0; ahead && i < next.items.size(); ++i) {
    next.items[i].sampled_by = static_cast<int32_t>(i);
    next.items[i].tokens = next.items[i].tokens.first(next.items[i].start);
    next.items[i].prompt_length = next.items[i].start;  // that token was generated
  }
  if (ahead) {
    BATON_RETURN_IF_ERROR(engine_.Submit(batch, nullptr));
    BATON_RETURN_IF_ERROR(engine_.Submit(next, nullptr));
    BATON_RETURN_IF_ERROR(engine_.Collect().status());
  }
  std::vector<double> times, idle;
  const auto begin = Clock::now();
  const auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  while (row.runs < kFewest || (row.runs < kMost && seconds(begin) < options_.seconds)) {
    const auto started = Clock::now();  // of this step, or of its successor's submission, when this one begins
    BATON_RETURN_IF_ERROR(engine_.Submit(ahead ? next : batch, nullptr));
    BATON_ASSIGN_OR_RETURN(const StepOutput output, engine_.Collect());
    times.push_back(seconds(started) * 1e6);
    idle.push_back(output.idle_us);
    ++row.runs;
  }
  if (ahead) BATON_RETURN_IF_ERROR(engine_.Collect().status());
  row.median_us = Median(times);
  row.best_us = *std::min_element(times.begin(), times.end());
  row.idle_us = Median(idle);
  return absl::OkStatus();
}

absl::Status EngineBench::Profile(Batch batch, EngineBenchRow& row) {
  batch.profile = true;
  std::array<std::vector<double>, kKernelFamilies> parts;
  for (int i = 0; i < kProfiles; ++i) {
    BATON_ASSIGN_OR_RETURN(const StepOutput output, engine_.Run(batch, nullptr));
    for (int family = 0; family < kKernelFamilies; ++family) parts[family].push_back(output.profile[family]);
  }
  for (int family = 0; family < kKernelFamilies; ++family) row.profile[family] = Median(parts[family]);
  return absl::OkStatus();
}

absl::StatusOr<EngineBenchRow> EngineBench::Measure(std::string name, const BenchStep& step) {
  EngineBenchRow row{.name = std::move(name), .step = step};
  const Batch batch = BatchOf(step);
  BATON_RETURN_IF_ERROR(Time(batch, RunsAhead(step), row));
  BATON_RETURN_IF_ERROR(Profile(batch, row));
  return row;
}

}  // namespace

EngineBenchNeeds NeedsOf(const EngineBenchOptions& options) {
  EngineBenchNeeds needs{
      .max_batch_tokens = 1, .max_sequences = 1, .max_model_len = options.context, .context = options.context};
  for (const int32_t tokens : options.prefill) {
    needs.max_batch_tokens = std::max(needs.max_batch_tokens, tokens);
    needs.max_model_len = std::max(needs.max_model_len, tokens);
  }
  for (const int32_t rows : options.decode) {
    needs.max_batch_tokens = std::max(needs.max_batch_tokens, rows);
    needs.max_sequences = std::max(needs.max_sequences, rows);
  }
  for (const MixedStep& mixed : options.mixed) {
    needs.max_batch_tokens = std::max(needs.max_batch_tokens, mixed.decode_rows + mixed.prompt_tokens);
    needs.max_sequences = std::max(needs.max_sequences, mixed.decode_rows + 1);
    needs.context = std::max(needs.context, PromptStart(options) + mixed.prompt_tokens);
  }
  needs.max_model_len = std::max(needs.max_model_len, needs.context);
  return needs;
}

absl::StatusOr<std::vector<EngineBenchRow>> MeasureEngine(Engine& engine, const EngineWork& work,
                                                          const Ceilings& ceilings, const EngineBenchOptions& options,
                                                          const std::function<void(const EngineBenchRow&)>& on_row) {
  std::vector<std::pair<std::string, BenchStep>> steps;
  for (const int32_t tokens : options.prefill) {
    steps.emplace_back(Cat("prefill ", tokens), BenchStep{.prompt_tokens = tokens});
  }
  const size_t prefills = steps.size();
  for (const int32_t rows : options.decode) {
    steps.emplace_back(Cat("decode ", rows, " x ", options.context),
                       BenchStep{.decode_rows = rows, .decode_context = options.context});
  }
  for (const MixedStep& mixed : options.mixed) {
    steps.emplace_back(Cat("mixed ", mixed.decode_rows, " x ", options.context, " + ", mixed.prompt_tokens),
                       BenchStep{.decode_rows = mixed.decode_rows,
                                 .decode_context = options.context,
                                 .prompt_tokens = mixed.prompt_tokens,
                                 .prompt_start = PromptStart(options)});
  }
  EngineBench bench(engine, options);
  BATON_RETURN_IF_ERROR(bench.Prepare());
  std::vector<EngineBenchRow> rows;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (i == prefills) BATON_RETURN_IF_ERROR(bench.FillContexts());
    BATON_ASSIGN_OR_RETURN(EngineBenchRow row, bench.Measure(steps[i].first, steps[i].second));
    row.floor_us = FloorMicroseconds(work, row.step, ceilings);
    on_row(row);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace baton
