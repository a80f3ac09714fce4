#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "app/backend_choice.h"
#include "app/bench.h"
#include "app/engine_factory.h"
#include "app/version.h"
#include "bench/engine_timing.h"
#include "bench/report.h"
#include "engine/llama.h"
#include "model/model.h"

namespace baton {
namespace {

absl::StatusOr<EngineBenchOptions> OptionsFor(const BenchEngineFlags& flags, bool gpu) {
  EngineBenchOptions options{
      .prefill = flags.prefill, .decode = flags.decode, .context = flags.context, .seconds = flags.seconds};
  for (const std::string& text : flags.mixed) {
    MixedStep mixed;
    int used = 0;
    if (std::sscanf(text.c_str(), "%dx%d%n", &mixed.decode_rows, &mixed.prompt_tokens, &used) != 2 ||
        used != static_cast<int>(text.size()) || mixed.decode_rows < 1 || mixed.prompt_tokens < 1) {
      return InvalidArgument("--mixed: expected ROWSxTOKENS, for example 32x480, found '", text, "'");
    }
    options.mixed.push_back(mixed);
  }
  const bool nothing_asked = flags.prefill.empty() && flags.decode.empty() && flags.mixed.empty();
  if (nothing_asked) {
    options.prefill = gpu ? std::vector<int32_t>{512, 3000, 8192} : std::vector<int32_t>{128, 512};
    options.decode = gpu ? std::vector<int32_t>{1, 8, 16, 32, 64} : std::vector<int32_t>{1, 8};
    options.mixed = gpu ? std::vector<MixedStep>{{32, 96}, {32, 480}} : std::vector<MixedStep>{{8, 64}};
  }
  if (options.context == 0) options.context = gpu ? 3075 : 512;
  return options;
}

absl::StatusOr<int> Run(BenchEngineFlags flags) {
  if (!flags.shape.empty() && !flags.engine.model.empty()) {
    return InvalidArgument("expected MODEL or --shape, not both");
  }
  if (!flags.shape.empty()) {
    flags.engine.model = flags.shape;
    flags.engine.load_format = "dummy";
  }
  if (flags.engine.model.empty()) return InvalidArgument("expected MODEL, or --shape NAME for dummy weights");
  BATON_ASSIGN_OR_RETURN(const EngineBenchOptions options, OptionsFor(flags, UsesGpu(flags.engine)));
  EngineBenchContext context{.version = VersionText(), .started_at = NowAsText()};
  BATON_ASSIGN_OR_RETURN(context.ceilings, MeasureCeilings(flags.engine));
  const auto begin = std::chrono::steady_clock::now();
  BATON_ASSIGN_OR_RETURN(const Model model, LoadModelFor(flags.engine));
  const EngineBenchNeeds needs = NeedsOf(options);
  flags.engine.max_model_len = needs.max_model_len;
  flags.engine.max_num_seqs = needs.max_sequences;
  flags.engine.max_num_batched_tokens = needs.max_batch_tokens;
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, CreateEngine(flags.engine, model, needs.KvTokens()));
  context.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  context.model = model.name();
  context.device = engine->info().device;
  std::fputs(EngineTableHeader(context).c_str(), stdout);
  BATON_ASSIGN_OR_RETURN(const std::vector<EngineBenchRow> rows,
                         MeasureEngine(*engine, WorkOf(model, engine->info().kv), context.ceilings, options,
                                       [](const EngineBenchRow& row) {
                                         std::fputs(EngineTableRow(row).c_str(), stdout);
                                         std::fflush(stdout);
                                       }));
  if (flags.json.empty()) return 0;
  std::ofstream file(flags.json);
  file << EngineJson(context, rows);
  if (!file.flush()) return InvalidArgument("cannot write ", flags.json);
  return 0;
}

}  // namespace

int RunBenchEngine(const BenchEngineFlags& flags) {
  const absl::StatusOr<int> code = Run(flags);
  if (code.ok()) return *code;
  std::fprintf(stderr, "baton bench engine: %s\n", std::string(Message(code.status())).c_str());
  return 1;
}

}  // namespace baton
