#include "app/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "app/version.h"
#include "base/status.h"

namespace baton {
namespace {

std::string ParsePool(const std::string& text, PoolFlag& pool) {
  int workers = 0, size = 0, used = 0;
  if (std::sscanf(text.c_str(), "%dx%d%n", &workers, &size, &used) != 2 || used != static_cast<int>(text.size()) ||
      workers < 1 || workers > 1024 || size < 1) {
    return Cat("expected WORKERSxSIZE, for example 2x1, found '", text, "'");
  }
  pool = {.workers = workers, .tensor_parallel = size};
  return "";
}

bool ParseWorker(const std::string& text, WorkerFlag& worker) {
  std::vector<std::string> parts;
  for (size_t begin = 0; parts.size() < 4;) {
    const size_t comma = parts.size() < 3 ? text.find(',', begin) : std::string::npos;
    parts.push_back(text.substr(begin, comma - begin));
    if (comma == std::string::npos) break;
    begin = comma + 1;
  }
  if (parts.size() != 4 || parts[2].empty() || parts[3].empty()) return false;
  int used = 0;
  unsigned long long id = 0;
  if (std::sscanf(parts[0].c_str(), "%llu%n", &id, &used) != 1 || used != static_cast<int>(parts[0].size()))
    return false;
  worker = {.id = id, .role = parts[1], .name = parts[2], .listen = parts[3]};
  return worker.role == "prefill" || worker.role == "decode" || worker.role == "hybrid";
}

void AddPool(CLI::App& app, const std::string& name, PoolFlag& pool, const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [name, &pool](const std::string& text) {
           if (const std::string error = ParsePool(text, pool); !error.empty()) throw CLI::ValidationError(name, error);
         },
         help)
      ->type_name("PxT");
}

void AddCommon(CLI::App& app, CommonFlags& flags) {
  app.add_option("--log-format", flags.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  app.add_flag("--verbose", flags.verbose, "log more");
}

void AddEngine(CLI::App& app, EngineFlags& flags) {
  app.add_option("model", flags.model, "GGUF file, Hugging Face directory, or a shape (with --load-format dummy)")
      ->type_name("MODEL");
  app.add_option("--load-format", flags.load_format, "dummy: random weights of the right shapes")
      ->check(CLI::IsMember({"auto", "dummy"}));
  app.add_option("--sim", flags.sim,
                 "simulated engine, without MODEL or with its tokenizer only: instant, or key=value,… of step_us, "
                 "prefill_us, decode_us, context_us, blocks, vocabulary")
      ->type_name("PROFILE");
  app.add_option("--device", flags.device, "cpu or cuda [a Hopper GPU if there is one]")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--cpu-isa", flags.cpu_isa, "code path of the CPU backend [the best of those that devices lists]")
      ->check(CLI::IsMember({"auto", "plain", "avx2", "avx512", "avx512bf16"}));
  app.add_option("--kv-cache-dtype", flags.kv_cache_dtype, "stored type of K and V")
      ->check(CLI::IsMember({"auto", "f16", "f32", "int8", "bf16", "fp8"}));
  app.add_option("--machine-share", flags.machine_share)->check(CLI::Range(1, 1024))->group("");
  app.add_option("--core-share", flags.core_share)->group("");
  app.add_option("--core-index", flags.core_index)->group("");
  app.add_option("--threads", flags.threads, "compute threads of each worker [all cores, shared by those that compute]")
      ->check(CLI::Range(1, 1024));
  app.add_option("--block-size", flags.block_size, "tokens of a KV block [32 on CPUs, 128 on GPUs]")
      ->check(CLI::Range(1, 4096));
  app.add_option("--max-num-seqs", flags.max_num_seqs, "sequences of one step [64]")->check(CLI::Range(1, 4096));
  app.add_option("--max-num-batched-tokens", flags.max_num_batched_tokens,
                 "tokens of one step, decode rows included [an eighth of a second's work]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--prefill-budget", flags.prefill_budget,
                 "prompt tokens that may ride on a decode step [from the targets and measured step times]")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--ttft-target-ms", flags.targets.ttft_ms, "time to first token to aim for")
      ->check(CLI::Range(1.0, 1e7))
      ->capture_default_str();
  app.add_option("--itl-target-ms", flags.targets.itl_ms, "mean time between tokens to aim for")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  app.add_option("--kv-cache-gib", flags.kv_cache_gib, "KV memory of each worker [from what is free]")
      ->check(CLI::Range(0.001, 1e6));
  app.add_option("--max-model-len", flags.max_model_len, "tokens of prompt and answer [the model's]")
      ->check(CLI::Range(1, 1 << 24));
  app.add_flag("--no-prefix-caching", flags.no_prefix_caching, "compute every prompt from its start");
  app.add_flag("--deterministic", flags.deterministic,
               "the same tokens whatever the batch and the topology, on GPUs in more time [CPUs: always]");
  app.add_option("--seed", flags.seed, "of dummy weights");
}

void AddFrontend(CLI::App& app, FrontendFlags& flags) {
  app.add_option("--host", flags.host, "address to listen on")->capture_default_str();
  app.add_option("--port", flags.port, "port; 0: any free one")->check(CLI::Range(0, 65535))->capture_default_str();
  app.add_option("--served-model-name", flags.served_model_name, "name in the API [the file's]");
  app.add_option("--api-key", flags.api_keys, "accepted keys; none: any");
  app.add_option("--chat-template", flags.chat_template, "Jinja file instead of the model's own")
      ->check(CLI::ExistingFile);
  app.add_option("--reasoning-parser", flags.reasoning_parser, "think: <think>…</think> becomes reasoning_content")
      ->check(CLI::IsMember({"think", "deepseek_r1"}));
  app.add_option("--max-requests", flags.max_in_flight, "requests in flight, more get 429")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-queued-tokens", flags.max_queued_tokens, "prompt tokens in flight, more get 429")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option("--request-timeout-ms", flags.request_timeout_ms, "of requests that name none")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--drain-timeout-ms", flags.drain_timeout_ms, "for requests in flight when stopping")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--max-local-prefill", flags.max_local_prefill,
                 "prompts longer than this are not prefilled where they decode [as the latency targets say]")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
}

// `Flags`: ServeFlags or WorkerFlags.
template <typename Flags>
void AddPath(CLI::App& app, Flags& flags) {
  app.add_option("--min-path-gbps", flags.min_path_gbps, "refuse hand-off paths that measure slower")
      ->check(CLI::Range(0.0, 1e6));
  app.add_flag("--verify-kv", flags.verify_kv,
               "compare KV blocks that were handed over with what was sent; bad ones are computed again (CPUs) [off]");
  app.add_option("--transfer-throttle-gbps", flags.transfer_throttle_gbps, "tests: move KV blocks no faster than this")
      ->check(CLI::Range(1e-6, 1e6))
      ->group("");
  app.add_option("--transfer-corrupt-every", flags.transfer_corrupt_every, "tests: change a bit of every N-th piece")
      ->check(CLI::Range(0, 1 << 30))
      ->group("");
  app.add_flag("--mute-handoff", flags.mute_handoff, "tests: answer nothing of a hand-off")->group("");
  app.add_flag("--abort-on-leak", flags.abort_on_leak, "tests: end a worker whose blocks do not add up")->group("");
}

void AddWatchdog(CLI::App& app, int64_t& wedged_after_ms, int64_t& wedged_restart_ms) {
  app.add_option("--wedged-after-ms", wedged_after_ms, "a worker without progress for so long gets no traffic")
      ->check(CLI::Range(int64_t{200}, int64_t{1} << 40))
      ->capture_default_str();
  app.add_option("--wedged-restart-ms", wedged_restart_ms, "likewise, and is started again; 0: never")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->capture_default_str();
}

void AddChild(CLI::App& app, ChildFlags& flags) {
  app.add_option("--supervisor", flags.supervisor)->group("");
  app.add_option("--lifeline-fd", flags.lifeline_fd)->group("");
  app.add_option("--step-record-fd", flags.step_record_fd)->group("");
  app.add_option("--incarnation", flags.incarnation)->group("");
  app.add_option("--process", flags.process)->group("");
}

CLI::App* AddServe(CLI::App& app, ServeFlags& flags) {
  CLI::App* serve = app.add_subcommand("serve", "serve a model over the OpenAI API");
  AddEngine(*serve, flags.engine);
  AddPool(*serve, "--prefill", flags.prefill, "P prefill workers of tensor-parallel size T");
  AddPool(*serve, "--decode", flags.decode, "decode workers, likewise");
  AddPool(*serve, "--hybrid", flags.hybrid, "workers that do both [1x1 when no other is asked for]");
  serve->add_option("--gpus", flags.gpus, "GPUs, taken in turn by the workers in the order above [all there are]")
      ->delimiter(',')
      ->check(CLI::Range(0, 1023));
  CLI::Option* isolate = serve->add_flag_callback(
      "--isolate", [&flags] { flags.placement = ProcessPlacement::kIsolated; },
      "a process for each worker, also for those of one GPU, which then take turns on it [the case on CPUs], and for "
      "more than 16 simulated ones");
  serve
      ->add_flag_callback(
          "--share-process", [&flags] { flags.placement = ProcessPlacement::kShared; },
          "one process, one engine and one KV pool for all workers of a device [the case on GPUs]")
      ->excludes(isolate);
  AddFrontend(*serve, flags.frontend);
  AddPath(*serve, flags);
  serve->add_option("--faults-on", flags.faults_on, "tests: only on this worker")->group("");
  AddWatchdog(*serve, flags.wedged_after_ms, flags.wedged_restart_ms);
  AddCommon(*serve, flags.common);
  serve
      ->add_option_function<std::string>(
          "--on-frontend-death", [&flags](const std::string& what) { flags.end_with_frontend = what == "stop"; },
          "restart: workers free what they had for its clients, and wait for the next one; stop: everything ends "
          "[restart]")
      ->check(CLI::IsMember({"restart", "stop"}))
      ->type_name("WHAT");
  serve->set_config("--config", "", "file of flags, TOML: port = 8000");
  serve->get_option("model")->required(false);
  return serve;
}

CLI::App* AddWorker(CLI::App& app, WorkerFlags& flags) {
  CLI::App* worker = app.add_subcommand("worker", "one worker (started by serve)");
  AddEngine(*worker, flags.engine);
  AddChild(*worker, flags.child);
  worker->add_option("--id", flags.worker.id, "place in the deployment");
  worker->add_option("--gpu", flags.engine.gpu, "index of its GPU")->check(CLI::Range(0, 1023));
  worker->add_option("--gpu-share", flags.engine.gpu_share, "processes on its GPU")
      ->check(CLI::Range(1, 64))
      ->group("");
  worker->add_option("--role", flags.worker.role, "prefill, decode or hybrid")
      ->check(CLI::IsMember({"prefill", "decode", "hybrid"}));
  worker->add_option("--listen", flags.worker.listen, "address of its sessions: unix:/path")->required();
  worker
      ->add_option_function<std::vector<std::string>>(
          "--beside",
          [&flags](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) {
              if (!ParseWorker(text, flags.beside.emplace_back())) {
                throw CLI::ValidationError("--beside", Cat("expected ID,ROLE,NAME,ADDRESS, found '", text, "'"));
              }
            }
          },
          "another worker on the same engine and KV pool: ID,ROLE,NAME,ADDRESS")
      ->type_name("WORKER");
  worker->add_flag("--own-engines", flags.own_engines, "they have an engine and a KV pool each")->group("");
  AddPath(*worker, flags);
  AddWatchdog(*worker, flags.wedged_after_ms, flags.wedged_restart_ms);
  AddCommon(*worker, flags.common);
  return worker;
}

CLI::App* AddFrontendProcess(CLI::App& app, FrontendProcessFlags& flags) {
  CLI::App* frontend = app.add_subcommand("frontend", "the HTTP front end (started by serve)");
  frontend->group("");
  AddEngine(*frontend, flags.engine);
  AddChild(*frontend, flags.child);
  AddFrontend(*frontend, flags.frontend);
  AddCommon(*frontend, flags.common);
  return frontend;
}

CLI::App* AddBenchServe(CLI::App& bench, BenchServeFlags& flags) {
  CLI::App* serve = bench.add_subcommand("serve", "load a server and report TTFT, ITL and throughput");
  serve->add_option("url", flags.url, "http://host:port")->required()->type_name("URL");
  serve->add_option("--model", flags.model, "as served [the first one]");
  serve->add_option("--concurrency", flags.concurrency, "closed loop: requests at a time")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  serve->add_option("--request-rate", flags.request_rate, "open loop: requests a second, Poisson")
      ->check(CLI::Range(1e-6, 1e6));
  serve->add_option("--input-tokens", flags.input_tokens)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  serve->add_option("--output-tokens", flags.output_tokens)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  serve->add_option("--requests", flags.requests, "measured requests [10 × concurrency]")
      ->check(CLI::Range(1, 1 << 24));
  serve->add_option("--warmup", flags.warmup, "requests before [2 × concurrency]")->check(CLI::Range(0, 1 << 24));
  serve->add_option("--shared-prefix-tokens", flags.shared_prefix_tokens, "tokens that all prompts share")
      ->check(CLI::Range(0, 1 << 24));
  serve->add_flag("--text-prompts", flags.text_prompts,
                  "prompts of --input-tokens common words, to be tokenized there");
  serve->add_option("--seed", flags.seed)->capture_default_str();
  serve->add_option("--ttft-target-ms", flags.ttft_target_ms, "goodput: time to first token")->capture_default_str();
  serve->add_option("--itl-target-ms", flags.itl_target_ms, "goodput: mean time between tokens")->capture_default_str();
  serve->add_option("--json", flags.json, "file for the results");
  AddCommon(*serve, flags.common);
  return serve;
}

CLI::App* AddBenchEngine(CLI::App& bench, BenchEngineFlags& flags) {
  CLI::App* engine = bench.add_subcommand("engine", "time prefill, decode and mixed steps in this process");
  AddEngine(*engine, flags.engine);
  engine->add_option("--shape", flags.shape, "dummy weights of this shape instead of MODEL: llama-70b-fp8, …");
  engine->add_option("--gpu", flags.engine.gpu, "index of the GPU")->check(CLI::Range(0, 1023));
  engine->add_option("--prefill", flags.prefill, "tokens of prompts [512,3000,8192; less on CPUs]")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  engine->add_option("--decode", flags.decode, "rows of decode steps [1,8,16,32,64; less on CPUs]")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  engine->add_option("--mixed", flags.mixed, "ROWSxTOKENS: decode rows and prompt tokens in one step [32x96,32x480]")
      ->delimiter(',')
      ->type_name("RxT");
  engine->add_option("--context", flags.context, "tokens that decode rows see [3075; less on CPUs]")
      ->check(CLI::Range(2, 1 << 20));
  engine->add_option("--seconds", flags.seconds, "for each kind of step")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  engine->add_option("--json", flags.json, "file for the results");
  AddCommon(*engine, flags.common);
  return engine;
}

int Complain(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  return 2;
}

// A simulated worker stands for all devices of its group, whose times its profile has.
std::string CheckSizes(const ServeFlags& flags) {
  for (const PoolFlag& pool : {flags.prefill, flags.decode, flags.hybrid}) {
    if (pool.tensor_parallel == 1 || !flags.engine.sim.empty()) continue;
    return Cat("baton serve: tensor-parallel size ", pool.tensor_parallel,
               " is not supported yet: this version runs workers of size 1 only, for example ", pool.workers,
               "x1 (simulated ones may have any)");
  }
  return "";
}

}  // namespace

std::variant<Command, int> ParseCommandLine(int argc, char** argv) {
  CLI::App app("Baton: disaggregated serving of large language models");
  app.name("baton");
  app.require_subcommand(1);
  app.set_version_flag("--version", VersionText());
  app.footer("baton SUBCOMMAND --help shows the flags of each.");
  ServeFlags serve_flags;
  WorkerFlags worker_flags;
  FrontendProcessFlags frontend_flags;
  BenchServeFlags bench_flags;
  BenchEngineFlags bench_engine_flags;
  const CLI::App* serve = AddServe(app, serve_flags);
  const CLI::App* worker = AddWorker(app, worker_flags);
  const CLI::App* frontend = AddFrontendProcess(app, frontend_flags);
  CLI::App* bench = app.add_subcommand("bench", "measure");
  bench->require_subcommand(1);
  const CLI::App* bench_serve = AddBenchServe(*bench, bench_flags);
  AddBenchEngine(*bench, bench_engine_flags);
  const CLI::App* devices = app.add_subcommand("devices", "what this machine has, and what is missing");
  const std::vector<CLI::App*> known = app.get_subcommands([](CLI::App*) { return true; });
  const auto is_asked_for = [&](const CLI::App* subcommand) { return subcommand->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(known.begin(), known.end(), is_asked_for)) {
    return Complain(
        Cat("baton: there is no '", argv[1], "'; expected serve, worker, bench or devices (baton --help shows them)"));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, std::cout, std::cerr);
    return code == 0 ? 0 : 2;
  }
  if (*devices) return Command(DevicesFlags{});
  if (*bench && *bench_serve) return Command(bench_flags);
  if (*bench) return Command(bench_engine_flags);
  if (*worker) return Command(worker_flags);
  if (*frontend) return Command(frontend_flags);
  if (*serve) {
    if (serve_flags.engine.model.empty() && serve_flags.engine.sim.empty()) {
      return Complain("baton serve: expected MODEL, a GGUF file or a Hugging Face directory (or --sim PROFILE)");
    }
    if (const std::string problem = CheckSizes(serve_flags); !problem.empty()) return Complain(problem);
    if (serve_flags.decode.workers + serve_flags.hybrid.workers + serve_flags.prefill.workers == 0)
      serve_flags.hybrid.workers = 1;
    if (serve_flags.decode.workers + serve_flags.hybrid.workers == 0) {
      return Complain("baton serve: prefill workers alone answer nobody; add --decode 1x1 or --hybrid 1x1");
    }
    const int workers = serve_flags.prefill.workers + serve_flags.decode.workers + serve_flags.hybrid.workers;
    if (static_cast<int>(serve_flags.gpus.size()) > workers) {
      return Complain(Cat("baton serve: --gpus names ", serve_flags.gpus.size(), " GPUs for ", workers,
                          " workers; expected one for each at most"));
    }
    return Command(serve_flags);
  }
  return 2;
}

std::vector<std::string> EngineArguments(const EngineFlags& flags) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* name, const std::string& value) {
    arguments.push_back(name);
    arguments.push_back(value);
  };
  if (!flags.model.empty()) arguments.push_back(flags.model);
  add("--load-format", flags.load_format);
  if (!flags.sim.empty()) add("--sim", flags.sim);
  add("--device", flags.device);
  add("--cpu-isa", flags.cpu_isa);
  add("--kv-cache-dtype", flags.kv_cache_dtype);
  add("--machine-share", Cat(flags.machine_share));
  if (flags.threads > 0) add("--threads", Cat(flags.threads));
  if (flags.block_size > 0) add("--block-size", Cat(flags.block_size));
  if (flags.max_num_seqs > 0) add("--max-num-seqs", Cat(flags.max_num_seqs));
  if (flags.max_num_batched_tokens > 0) add("--max-num-batched-tokens", Cat(flags.max_num_batched_tokens));
  if (flags.prefill_budget >= 0) add("--prefill-budget", Cat(flags.prefill_budget));
  add("--ttft-target-ms", Cat(flags.targets.ttft_ms));
  add("--itl-target-ms", Cat(flags.targets.itl_ms));
  if (flags.kv_cache_gib > 0) add("--kv-cache-gib", Cat(flags.kv_cache_gib));
  if (flags.max_model_len > 0) add("--max-model-len", Cat(flags.max_model_len));
  if (flags.no_prefix_caching) arguments.push_back("--no-prefix-caching");
  if (flags.deterministic) arguments.push_back("--deterministic");
  add("--seed", Cat(flags.seed));
  return arguments;
}

}  // namespace baton
