#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/backend_choice.h"
#include "app/child_link.h"
#include "app/engine_factory.h"
#include "app/gpu_watch.h"
#include "app/processes.h"
#include "base/crash_handler.h"
#include "base/log.h"
#include "base/mutex.h"
#include "supervisor/supervisor.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {
namespace {

constexpr int64_t kAbortMs = 3000;  // for a process to die of SIGABRT, its trace included

std::unique_ptr<Transport> MakeTransport(const WorkerFlags& flags, const KvMemory& memory) {
  auto transport = ChooseTransport(memory, flags.engine.gpu);
  if (flags.transfer_throttle_gbps <= 0) return transport;
  return MakeThrottledTransport(std::move(transport), {.bytes_per_second = flags.transfer_throttle_gbps * 1e9});
}

int ExitCode(const absl::Status& status) {
  LogError(Message(status));
  const bool hopeless = absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsUnimplemented(status) ||
                        absl::IsFailedPrecondition(status) || absl::IsPermissionDenied(status);
  return hopeless ? kExitConfiguration : 1;
}

// Of the prefill workers that a decode worker talks to. The router watches all workers closely; this is for when it
// cannot, and there is one such session for every pair.
constexpr PeerWatchOptions kPeerBeats{.interval_ms = 500,
                                      .look_after = 1,
                                      .suspect_stopped = 1,
                                      .suspect_silent = 2,
                                      .suspect_active = 4,
                                      .lose_stopped = 4,
                                      .lose_silent = 20};

// Members may be heard of before there is a worker to tell.
class MemberNews {
 public:
  void OnMembers(const proto::Members& members) BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    members_ = members;
    for (Worker* worker : workers_) worker->OnMembers(members_);
  }
  void Tell(Worker* worker) BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    workers_.push_back(worker);
    worker->OnMembers(members_);
  }
  void TellNobody() BATON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    workers_.clear();
  }

 private:
  Mutex mutex_;
  proto::Members members_ BATON_GUARDED_BY(mutex_);
  std::vector<Worker*> workers_ BATON_GUARDED_BY(mutex_);
};

proto::Role RoleOf(const std::string& name) {
  return name == "prefill" ? proto::PREFILL : name == "decode" ? proto::DECODE : proto::HYBRID;
}

// The workers of this process, each with a name of its own.
std::vector<WorkerFlag> WorkersOf(const WorkerFlags& flags) {
  std::vector<WorkerFlag> workers{flags.worker};
  workers.insert(workers.end(), flags.beside.begin(), flags.beside.end());
  workers.front().name = flags.child.process.substr(0, flags.child.process.find('+'));
  return workers;
}

std::string DescribeEngine(const WorkerFlags& flags, const EngineInfo& info, const SchedulerOptions& scheduler) {
  std::string text = Cat(info.backend, ", ", info.device);
  if (flags.engine.gpu_share > 1) {
    text += Cat(", time-sliced: ", flags.engine.gpu_share, " processes on GPU ", flags.engine.gpu);
  }
  if (!flags.beside.empty()) text += Cat(", shared by ", flags.beside.size() + 1, " workers");
  return Cat(text, "; KV ", info.num_blocks, " blocks of ", info.kv.block_size, " tokens, chunks of ",
             scheduler.prefill_chunk_tokens);
}

absl::Status Serve(const WorkerFlags& flags) {
  BATON_ASSIGN_OR_RETURN(auto network, Network::Create({.watch = kPeerBeats}));
  MemberNews news;
  ChildLinkEvents events{.on_members = [&](const proto::Members& members) { news.OnMembers(members); }};
  BATON_ASSIGN_OR_RETURN(auto link, ChildLink::Create(*network, flags.child, flags.worker.id, std::move(events)));
  link->Report("loading weights", 0);
  double reported = 0;
  BATON_ASSIGN_OR_RETURN(LoadedEngine loaded, LoadEngine(flags.engine, [&](double fraction) {
                           if (fraction - reported < 0.02) return;
                           reported = fraction;
                           link->Report("loading weights", 0.9 * fraction);
                         }));
  const auto transport = MakeTransport(flags, loaded.engine->kv_memory());
  // A trace of the thread that hangs comes with its death. One that not even a signal reaches is killed.
  const pthread_t step_loop = pthread_self();
  std::unique_ptr<Timer> last_resort;
  const auto end_stuck = [&](const std::string& reason) {
    LogError(reason, ": ending this process; where its step loop is follows");
    pthread_kill(step_loop, SIGABRT);
    last_resort = network->RunAfter(kAbortMs, [&link, &flags, reason] {
      proto::WorkerLost lost;
      lost.set_worker(flags.worker.id);
      lost.set_incarnation(flags.child.incarnation);
      lost.set_reason(reason);
      link->ReportLost(lost);
    });
  };
  std::optional<GpuWatch> gpu;
  if (loaded.engine->info().backend == "cuda") gpu.emplace(flags.engine.gpu);
  StepLoop loop(*loaded.engine);
  std::vector<std::unique_ptr<Worker>> workers;
  for (const WorkerFlag& flag : WorkersOf(flags)) {
    WorkerOptions options{
        .id = {flag.id},
        .incarnation = flags.child.incarnation,
        .role = RoleOf(flag.role),
        .process = flag.name,
        .address = flag.listen,
        .scheduler = loaded.scheduler,
        .prefill_tokens_per_second = loaded.prefill_tokens_per_second,
        .min_path_gbps = flags.min_path_gbps,
        .watchdog = {.wedged_after_ms = flags.wedged_after_ms, .restart_after_ms = flags.wedged_restart_ms},
        .on_stuck = end_stuck,
        .abort_on_leak = flags.abort_on_leak,
        .report_lost = [&](const proto::WorkerLost& lost) { link->ReportLost(lost); },
        .gpu_gauges = [&] { return gpu ? gpu->Now() : std::nullopt; }};
    BATON_ASSIGN_OR_RETURN(auto worker, Worker::Create(*network, loop, *transport, std::move(options)));
    workers.push_back(std::move(worker));
  }
  for (const auto& worker : workers) news.Tell(worker.get());
  link->Report("ready", 1, DescribeEngine(flags, loaded.engine->info(), loaded.scheduler));
  const absl::Status status = loop.Run();
  news.TellNobody();
  for (const auto& worker : workers) worker->Disconnect();
  network.reset();  // its callbacks use what is about to go
  return status;
}

}  // namespace

int RunWorker(const WorkerFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  ConfigureLogging(flags.child.process.empty() ? flags.worker.role : flags.child.process,
                   flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                   flags.common.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  InstallCrashHandler(flags.child.process.empty() ? flags.worker.role : flags.child.process,
                      flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  const absl::Status status = Serve(flags);
  return status.ok() ? 0 : ExitCode(status);
}

}  // namespace baton
