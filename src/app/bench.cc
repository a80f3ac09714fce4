#include "app/bench.h"

#include "bench/bench_serve.h"

namespace baton {

int RunBenchServe(const BenchServeFlags& flags) {
  return BenchServe({.url = flags.url,
                     .model = flags.model,
                     .workload = {.input_tokens = flags.input_tokens,
                                  .output_tokens = flags.output_tokens,
                                  .requests = flags.requests > 0 ? flags.requests : 10 * flags.concurrency,
                                  .warmup = flags.warmup >= 0 ? flags.warmup : 2 * flags.concurrency,
                                  .shared_prefix_tokens = flags.shared_prefix_tokens,
                                  .text_prompts = flags.text_prompts,
                                  .concurrency = flags.concurrency,
                                  .requests_per_second = flags.request_rate,
                                  .seed = flags.seed},
                     .targets = {.ttft_ms = flags.ttft_target_ms, .itl_ms = flags.itl_target_ms},
                     .json_path = flags.json});
}

}  // namespace baton
