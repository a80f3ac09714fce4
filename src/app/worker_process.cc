#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <thread>

#include "app/child_link.h"
#include "app/engine_factory.h"
#include "app/processes.h"
#include "base/crash_handler.h"
#include "base/log.h"
#include "supervisor/supervisor.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {
namespace {

constexpr int64_t kAbortMs = 3000;  // for a process to die of SIGABRT, its trace included

std::unique_ptr<Transport> MakeTransport(const WorkerFlags& flags, const KvMemory& memory) {
  // Memory of a GPU has no descriptor that could be sent: its blocks stay in this process.
  auto transport = memory.shareable_fd >= 0 ? MakeSharedMemoryTransport() : MakeLocalTransport();
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

absl::Status Serve(const WorkerFlags& flags) {
  BATON_ASSIGN_OR_RETURN(auto network, Network::Create({.watch = kPeerBeats}));
  // Members may be heard of before there is a worker to tell.
  Mutex mutex;
  Worker* worker = nullptr;
  proto::Members members;
  ChildLinkEvents events{.on_members = [&](const proto::Members& now) {
    MutexLock lock(mutex);
    members = now;
    if (worker != nullptr) worker->OnMembers(now);
  }};
  BATON_ASSIGN_OR_RETURN(auto link, ChildLink::Create(*network, flags.child, flags.id, std::move(events)));
  link->Report("loading weights", 0);
  double reported = 0;
  BATON_ASSIGN_OR_RETURN(LoadedEngine loaded, LoadEngine(flags.engine, [&](double fraction) {
                           if (fraction - reported < 0.02) return;
                           reported = fraction;
                           link->Report("loading weights", 0.9 * fraction);
                         }));
  const EngineInfo& info = loaded.engine->info();
  const auto transport = MakeTransport(flags, loaded.engine->kv_memory());
  // A trace of the thread that hangs comes with its death. One that not even a signal reaches is killed.
  const pthread_t step_loop = pthread_self();
  std::unique_ptr<Timer> last_resort;
  const auto end_stuck = [&](const std::string& reason) {
    LogError(reason, ": ending this process; where its step loop is follows");
    pthread_kill(step_loop, SIGABRT);
    last_resort = network->RunAfter(kAbortMs, [&link, &flags, reason] {
      proto::WorkerLost lost;
      lost.set_worker(flags.id);
      lost.set_incarnation(flags.child.incarnation);
      lost.set_reason(reason);
      link->ReportLost(lost);
    });
  };
  WorkerOptions options{
      .id = {flags.id},
      .incarnation = flags.child.incarnation,
      .role = flags.role == "prefill"  ? proto::PREFILL
              : flags.role == "decode" ? proto::DECODE
                                       : proto::HYBRID,
      .process = flags.child.process,
      .address = flags.listen,
      .scheduler = loaded.scheduler,
      .prefill_tokens_per_second = loaded.prefill_tokens_per_second,
      .min_path_gbps = flags.min_path_gbps,
      .watchdog = {.wedged_after_ms = flags.wedged_after_ms, .restart_after_ms = flags.wedged_restart_ms},
      .on_stuck = end_stuck,
      .abort_on_leak = flags.abort_on_leak,
      .report_lost = [&](const proto::WorkerLost& lost) { link->ReportLost(lost); }};
  BATON_ASSIGN_OR_RETURN(auto served, Worker::Create(*network, *loaded.engine, *transport, std::move(options)));
  {
    MutexLock lock(mutex);
    worker = served.get();
    worker->OnMembers(members);
  }
  link->Report("ready", 1,
               Cat(info.backend, ", ", info.device, "; KV ", info.num_blocks, " blocks of ", info.kv.block_size,
                   " tokens, chunks of ", loaded.scheduler.prefill_chunk_tokens));
  const absl::Status status = served->Run();
  {
    MutexLock lock(mutex);
    worker = nullptr;
  }
  served->Disconnect();
  network.reset();  // its callbacks use what is about to go
  return status;
}

}  // namespace

int RunWorker(const WorkerFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  ConfigureLogging(flags.child.process.empty() ? flags.role : flags.child.process,
                   flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                   flags.common.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  InstallCrashHandler(flags.child.process.empty() ? flags.role : flags.child.process,
                      flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  const absl::Status status = Serve(flags);
  return status.ok() ? 0 : ExitCode(status);
}

}  // namespace baton
