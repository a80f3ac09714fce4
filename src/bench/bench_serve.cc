#include "bench/bench_serve.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "bench/http_stream_client.h"
#include "bench/load_generator.h"
#include "bench/served_model.h"

namespace baton {
namespace {

struct ProcessorTime {
  double run_seconds = 0;
  double wait_seconds = 0;  // ready to run, but kept waiting
};

// Of this process, which has one thread.
ProcessorTime ReadProcessorTime() {
  std::ifstream file("/proc/self/schedstat");
  ProcessorTime time;
  if (!(file >> time.run_seconds >> time.wait_seconds)) return {};
  return {.run_seconds = time.run_seconds * 1e-9, .wait_seconds = time.wait_seconds * 1e-9};
}

// One line that is drawn over again, on a terminal only.
class ProgressLine {
 public:
  explicit ProgressLine(const char* what) : what_(what), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~ProgressLine() {
    if (terminal_) std::fputs("\r\x1b[K", stderr);
  }
  void Draw(const LoadProgress& progress, int64_t count) const {
    if (!terminal_) return;
    std::fprintf(stderr, "\r\x1b[K  %s: %lld of %lld requests, %.0f tokens/s, %.0f s", what_,
                 static_cast<long long>(progress.finished), static_cast<long long>(count),
                 progress.seconds > 0 ? static_cast<double>(progress.tokens) / progress.seconds : 0.0,
                 progress.seconds);
    if (progress.failed > 0) std::fprintf(stderr, ", %lld failed", static_cast<long long>(progress.failed));
  }

 private:
  const char* what_;
  bool terminal_;
};

class ServeBenchmark {
 public:
  ServeBenchmark(const BenchServeOptions& options, const HttpTarget& target)
      : options_(options), target_(target), load_(target) {
    context_ = {.url = options.url, .model = options.model, .workload = options.workload, .targets = options.targets};
  }

  absl::StatusOr<Figures> Run() {
    BATON_RETURN_IF_ERROR(load_.Prepare());
    if (context_.model.empty()) {
      BATON_ASSIGN_OR_RETURN(context_.model, FirstServedModel(target_));
    }
    BATON_ASSIGN_OR_RETURN(pool_, FindTokenPool(target_, context_.model));
    context_.prompt_source = options_.workload.text_prompts ? "common words" : pool_.source;
    context_.version_json = BodyOf(target_, "/version");
    context_.prefix_cache_reset = ResetPrefixCache(target_);
    BATON_RETURN_IF_ERROR(WarmUp());
    context_.started_at = NowAsText();
    const ProcessorTime before = ReadProcessorTime();
    const LoadResult result = RunPhase("measuring", 0, options_.workload.requests, ArrivalSeconds(options_.workload));
    const ProcessorTime after = ReadProcessorTime();
    context_.client_cpu_seconds = after.run_seconds - before.run_seconds;
    context_.client_wait_seconds = after.wait_seconds - before.wait_seconds;
    context_.cluster_json = BodyOf(target_, "/cluster");  // afterwards: with the paths it has measured
    return ComputeFigures(result, options_.targets);
  }

  const ReportContext& context() const { return context_; }

 private:
  // A server that refuses every request of the warm-up is not worth the rest.
  absl::Status WarmUp() {
    const int64_t count = options_.workload.warmup;
    if (count == 0) return absl::OkStatus();
    const LoadResult result = RunPhase("warming up", options_.workload.requests, count, {});
    for (const RequestRecord& record : result.records) {
      if (record.error.empty()) return absl::OkStatus();
    }
    return Unavailable("every request of the warm-up failed: ", result.records.front().error);
  }

  LoadResult RunPhase(const char* name, int64_t first, int64_t count, std::vector<double> arrivals) {
    const ProgressLine line(name);
    return load_.Run(
        {.count = count,
         .concurrency = options_.workload.concurrency,
         .arrival_seconds = std::move(arrivals),
         .output_tokens = options_.workload.output_tokens,
         .request =
             [&](int64_t index) {
               const std::vector<int32_t> prompt = PromptTokens(options_.workload, pool_.tokens, first + index);
               return MakeRequest(target_, "POST", "/v1/completions",
                                  options_.workload.text_prompts
                                      ? CompletionBody(options_.workload, context_.model, PromptText(prompt))
                                      : CompletionBody(options_.workload, context_.model, prompt));
             },
         .progress = [&](const LoadProgress& progress) { line.Draw(progress, count); }});
  }

  const BenchServeOptions& options_;
  const HttpTarget& target_;
  LoadGenerator load_;
  ReportContext context_;
  TokenPool pool_;
};

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "baton bench serve: %s\n", std::string(Message(status)).c_str());
  return code;
}

bool WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file.good();
}

}  // namespace

int BenchServe(const BenchServeOptions& options) {
  if (const absl::Status status = CheckWorkload(options.workload); !status.ok()) return Complain(status, 2);
  const absl::StatusOr<HttpTarget> target = ResolveUrl(options.url);
  if (!target.ok()) return Complain(target.status(), absl::IsInvalidArgument(target.status()) ? 2 : 1);
  ServeBenchmark benchmark(options, *target);
  const absl::StatusOr<Figures> figures = benchmark.Run();
  if (!figures.ok()) {
    return Complain(absl::Status(figures.status().code(), Cat(options.url, ": ", Message(figures.status()))), 1);
  }
  std::fputs(FormatTable(benchmark.context(), *figures).c_str(), stdout);
  if (!options.json_path.empty() && !WriteFile(options.json_path, FormatJson(benchmark.context(), *figures))) {
    return Complain(InvalidArgument("cannot write ", options.json_path), 1);
  }
  return figures->failed == 0 ? 0 : 1;
}

}  // namespace baton
