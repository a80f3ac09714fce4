#include "app/serve.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "app/backend_choice.h"
#include "app/command_line.h"
#include "app/placement.h"
#include "base/descriptor_limit.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

namespace baton {
namespace {

// Shows how far every process is: one bar while all load on a terminal, one line for each that is ready, the URL at the
// end.
class StartUp {
 public:
  StartUp(std::string model, size_t processes)
      : model_(std::move(model)), processes_(processes), terminal_(isatty(STDERR_FILENO)) {}

  void OnProgress(const proto::Progress& progress, const std::string& process) {
    if (progress.stage() != "ready") {
      fractions_[process] = progress.fraction();
      if (!announced_) Draw(progress.stage());
      return;
    }
    fractions_[process] = 1;
    Clear();
    if (process == "frontend") url_ = progress.device();
    LogInfo(process, " is ready", progress.device().empty() ? "" : ": ", progress.device());
    if (fractions_.size() < processes_ || announced_) return;
    for (const auto& [name, fraction] : fractions_) {
      if (fraction < 1) return;
    }
    announced_ = true;
    LogInfo("serving ", model_, " at ", url_, "  (Ctrl-C stops)");
  }

 private:
  void Draw(const std::string& stage) {
    if (!terminal_) return;
    double total = 0;
    for (const auto& [process, fraction] : fractions_) total += fraction;
    const int filled = static_cast<int>(30 * total / static_cast<double>(processes_));
    std::fprintf(stderr, "\r%-20s [%-30.*s] %3.0f %%", stage.c_str(), filled, "##############################",
                 100 * total / static_cast<double>(processes_));
    std::fflush(stderr);
    drawn_ = true;
  }
  void Clear() {
    if (drawn_) std::fprintf(stderr, "\r%60s\r", "");
    drawn_ = false;
  }

  const std::string model_;
  const size_t processes_;
  const bool terminal_;
  std::map<std::string, double> fractions_;
  std::string url_;
  bool drawn_ = false;
  bool announced_ = false;
};

const char* RoleName(proto::Role role) {
  return role == proto::PREFILL ? "prefill" : role == proto::DECODE ? "decode" : "hybrid";
}

void AppendCommon(std::vector<std::string>& arguments, const CommonFlags& flags) {
  arguments.insert(arguments.end(), {"--log-format", flags.log_format});
  if (flags.verbose) arguments.push_back("--verbose");
}

std::vector<std::string> FrontendArguments(const ServeFlags& flags) {
  const FrontendFlags& frontend = flags.frontend;
  std::vector<std::string> arguments{"frontend"};
  for (const std::string& argument : EngineArguments(flags.engine)) arguments.push_back(argument);
  const auto add = [&](const char* name, const std::string& value) {
    arguments.insert(arguments.end(), {name, value});
  };
  add("--host", frontend.host);
  add("--port", Cat(frontend.port));
  if (!frontend.served_model_name.empty()) add("--served-model-name", frontend.served_model_name);
  for (const std::string& key : frontend.api_keys) add("--api-key", key);
  if (!frontend.chat_template.empty()) add("--chat-template", frontend.chat_template);
  if (!frontend.reasoning_parser.empty()) add("--reasoning-parser", frontend.reasoning_parser);
  add("--max-requests", Cat(frontend.max_in_flight));
  if (frontend.max_queued_tokens > 0) add("--max-queued-tokens", Cat(frontend.max_queued_tokens));
  add("--request-timeout-ms", Cat(frontend.request_timeout_ms));
  add("--drain-timeout-ms", Cat(frontend.drain_timeout_ms));
  if (frontend.max_local_prefill >= 0) add("--max-local-prefill", Cat(frontend.max_local_prefill));
  AppendCommon(arguments, flags.common);
  return arguments;
}

// The arguments of a process with these workers.
std::vector<std::string> WorkerArguments(const ServeFlags& flags, const ChildSpec& spec, bool own_engines) {
  std::vector<std::string> arguments{"worker"};
  for (const std::string& argument : EngineArguments(flags.engine)) arguments.push_back(argument);
  const auto add = [&](const char* name, const std::string& value) {
    arguments.insert(arguments.end(), {name, value});
  };
  const WorkerSpec& first = spec.workers.front();
  add("--id", Cat(first.id.value));
  add("--role", RoleName(first.role));
  add("--listen", first.address);
  add("--process", spec.process);
  if (own_engines) arguments.push_back("--own-engines");
  for (size_t i = 1; i < spec.workers.size(); ++i) {
    const WorkerSpec& worker = spec.workers[i];
    add("--beside", Cat(worker.id.value, ",", RoleName(worker.role), ",", worker.name, ",", worker.address));
  }
  if (flags.min_path_gbps > 0) add("--min-path-gbps", Cat(flags.min_path_gbps));
  if (flags.verify_kv) arguments.push_back("--verify-kv");
  if (flags.faults_on.empty() || flags.faults_on == spec.process) {
    if (flags.transfer_throttle_gbps > 0) add("--transfer-throttle-gbps", Cat(flags.transfer_throttle_gbps));
    if (flags.transfer_corrupt_every > 0) add("--transfer-corrupt-every", Cat(flags.transfer_corrupt_every));
    if (flags.mute_handoff) arguments.push_back("--mute-handoff");
  }
  add("--wedged-after-ms", Cat(flags.wedged_after_ms));
  add("--wedged-restart-ms", Cat(flags.wedged_restart_ms));
  if (flags.abort_on_leak) arguments.push_back("--abort-on-leak");
  AppendCommon(arguments, flags.common);
  return arguments;
}

std::vector<WorkerSpec> Workers(const ServeFlags& flags, const std::string& folder) {
  std::vector<WorkerSpec> workers;
  const auto add = [&](const PoolFlag& pool, proto::Role role) {
    for (int i = 0; i < pool.workers; ++i) {
      WorkerSpec& worker = workers.emplace_back();
      worker = {.id = {workers.size()}, .role = role, .name = Cat(RoleName(role), "-", i)};
      worker.address = Cat("unix:", folder, "/", worker.name);
    }
  };
  add(flags.prefill, proto::PREFILL);
  add(flags.decode, proto::DECODE);
  add(flags.hybrid, proto::HYBRID);
  return workers;
}

// "prefill-0", "prefill-0+decode-0", "prefill-0+15 others". What stands before the plus is the first worker's.
std::string ProcessName(const std::vector<WorkerSpec>& workers) {
  if (workers.size() > 4) return Cat(workers.front().name, "+", workers.size() - 1, " others");
  std::string name = workers.front().name;
  for (size_t i = 1; i < workers.size(); ++i) name += Cat("+", workers[i].name);
  return name;
}

std::vector<ChildSpec> Children(ServeFlags flags, const std::string& folder) {
  const int32_t gpus = CountGpus(flags.engine);
  const std::vector<WorkerSpec> workers = Workers(flags, folder);
  std::vector<PlacedProcess> processes = flags.engine.sim.empty()
                                             ? PlaceWorkers(workers, flags.gpus, gpus, flags.placement)
                                             : PlaceSimulated(workers, flags.placement);
  flags.engine.machine_share = static_cast<int32_t>(processes.size());
  std::vector<ChildSpec> children;
  for (PlacedProcess& process : processes) {
    ChildSpec& child = children.emplace_back();
    child.workers = std::move(process.workers);
    child.process = ProcessName(child.workers);
    child.arguments = WorkerArguments(flags, child, process.own_engines);
    child.arguments.insert(child.arguments.end(),
                           {"--core-share", folder + "/cores", "--core-index", Cat(children.size() - 1)});
    if (gpus == 0) continue;
    child.arguments.insert(child.arguments.end(), {"--gpu", Cat(process.gpu), "--gpu-share", Cat(process.gpu_share)});
    if (process.gpu_share > 1) {
      LogWarning(child.process, " shares GPU ", process.gpu, " in time slices with ", process.gpu_share - 1,
                 " other processes: leave --isolate out for speed");
    }
  }
  ChildSpec frontend{.process = "frontend", .arguments = FrontendArguments(flags)};
  frontend.arguments.insert(frontend.arguments.end(), {"--process", "frontend"});
  children.push_back(std::move(frontend));
  return children;
}

// Children inherit it; it appears in no argument list.
void DrawHashSecret() {
  std::random_device device;
  char secret[20];
  std::snprintf(secret, sizeof(secret), "%08x%08x", device(), device());
  setenv(kHashSecretVariable, secret, 1);
}

}  // namespace

int RunServe(const ServeFlags& given) {
  BlockSignals();
  RaiseDescriptorLimit();  // of the children too
  DrawHashSecret();
  ServeFlags flags = given;
  ConfigureLogging("serve", flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                   flags.common.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  absl::StatusOr<std::string> folder = CreateRunFolder();
  absl::StatusOr<std::unique_ptr<Network>> network = Network::Create({.watch = kUnhurriedWatch});
  if (!folder.ok() || !network.ok()) {
    LogError(Message(folder.ok() ? network.status() : folder.status()));
    return 1;
  }
  absl::Status status;
  {
    SupervisorOptions options{.address = Cat("unix:", *folder, "/supervisor"),
                              .children = Children(flags, *folder),
                              .drain_timeout_ms = flags.frontend.drain_timeout_ms,
                              .end_with_front_end = flags.end_with_frontend};
    auto start_up = std::make_shared<StartUp>(flags.engine.model.empty() ? "simulated engines" : flags.engine.model,
                                              options.children.size());
    options.on_progress = [start_up](const proto::Progress& progress, const std::string& process) {
      start_up->OnProgress(progress, process);
    };
    Supervisor supervisor(**network, std::move(options));
    status = supervisor.Run();
  }
  network->reset();
  std::error_code ignored;
  std::filesystem::remove_all(*folder, ignored);
  if (!status.ok()) {
    LogError(Message(status));
    return 1;
  }
  LogInfo("stopped");
  return 0;
}

}  // namespace baton
