#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "app/backend_choice.h"
#include "app/child_link.h"
#include "app/engine_factory.h"
#include "app/gpu_watch.h"
#include "app/processes.h"
#include "base/crash_handler.h"
#include "base/log.h"
#include "base/mutex.h"
#include "core/step_record.h"
#include "supervisor/supervisor.h"
#include "transfer/transport.h"
#include "worker/worker.h"

namespace baton {
namespace {

constexpr int64_t kAbortMs = 3000;  // for a process to die of SIGABRT, its trace included

std::unique_ptr<Transport> MakeTransport(const WorkerFlags& flags, const KvMemory& memory) {
  auto transport = ChooseTransport(memory, flags.engine.gpu);
  if (flags.transfer_throttle_gbps <= 0 && flags.transfer_corrupt_every == 0) return transport;
  return MakeThrottledTransport(std::move(transport), {.bytes_per_second = flags.transfer_throttle_gbps * 1e9,
                                                       .corrupt_every = flags.transfer_corrupt_every});
}

int ExitCode(const absl::Status& status) {
  LogError(Message(status));
  const bool hopeless = absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsUnimplemented(status) ||
                        absl::IsFailedPrecondition(status) || absl::IsPermissionDenied(status);
  return hopeless ? kExitConfiguration : 1;
}

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
  if (!flags.beside.empty()) {
    text += Cat(flags.own_engines ? ", one of " : ", shared by ", flags.beside.size() + 1,
                flags.own_engines ? " in a process" : " workers");
  }
  return Cat(text, "; KV ", info.num_blocks, " blocks of ", info.kv.block_size, " tokens, chunks of ",
             scheduler.prefill_chunk_tokens);
}

// An engine, its step loop, and the workers on it. They go in the opposite order.
struct EngineLoop {
  LoadedEngine loaded;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<StepLoop> steps;
  std::vector<std::unique_ptr<Worker>> workers;
  std::atomic<pthread_t> thread{};  // that runs it, before its watchdogs start
  absl::Status status;              // how it ended
};

class WorkerProcess {
 public:
  explicit WorkerProcess(const WorkerFlags& flags) : flags_(flags) {}

  absl::Status Serve() {
    // The router watches all workers closely. This is for when it cannot, and there is a session for every pair.
    BATON_ASSIGN_OR_RETURN(network_, Network::Create({.watch = kUnhurriedWatch}));
    ChildLinkEvents events{.on_members = [this](const proto::Members& members) { news_.OnMembers(members); }};
    BATON_ASSIGN_OR_RETURN(link_, ChildLink::Create(*network_, flags_.child, flags_.worker.id, std::move(events)));
    link_->Report("loading weights", 0);
    const std::vector<WorkerFlag> workers = WorkersOf(flags_);
    if (flags_.child.step_record_fd >= 0) {
      BATON_ASSIGN_OR_RETURN(step_record_, StepRecord::Map(UniqueFd(flags_.child.step_record_fd), workers.size()));
    }
    if (flags_.own_engines) {
      for (const WorkerFlag& worker : workers) BATON_RETURN_IF_ERROR(AddLoop({worker}));
    } else {
      BATON_RETURN_IF_ERROR(AddLoop(workers));
    }
    for (const auto& loop : loops_) {
      for (const auto& worker : loop->workers) news_.Tell(worker.get());
    }
    const LoadedEngine& loaded = loops_.front()->loaded;
    link_->Report("ready", 1, DescribeEngine(flags_, loaded.engine->info(), loaded.scheduler));
    RunLoops();
    news_.TellNobody();
    for (const auto& loop : loops_) {
      for (const auto& worker : loop->workers) worker->Disconnect();
    }
    network_.reset();  // its callbacks use what is about to go
    for (const auto& loop : loops_) BATON_RETURN_IF_ERROR(loop->status);
    return absl::OkStatus();
  }

 private:
  absl::Status AddLoop(const std::vector<WorkerFlag>& workers) {
    EngineLoop& loop = *loops_.emplace_back(std::make_unique<EngineLoop>());
    double reported = 0;
    BATON_ASSIGN_OR_RETURN(loop.loaded, LoadEngine(flags_.engine, [&](double fraction) {
                             if (fraction - reported < 0.02) return;
                             reported = fraction;
                             link_->Report("loading weights", 0.9 * fraction);
                           }));
    if (flags_.verify_kv && loop.loaded.engine->kv_memory().shareable_fd < 0) {
      return InvalidArgument("--verify-kv: expected KV blocks in host memory (CPUs, --sim), found them on ",
                             loop.loaded.engine->info().device, "; leave the flag out");
    }
    if (!gpu_ && loop.loaded.engine->info().backend == "cuda") gpu_.emplace(flags_.engine.gpu);
    loop.transport = MakeTransport(flags_, loop.loaded.engine->kv_memory());
    loop.steps = std::make_unique<StepLoop>(*loop.loaded.engine);
    for (const WorkerFlag& flag : workers) {
      WorkerOptions options{
          .id = {flag.id},
          .incarnation = flags_.child.incarnation,
          .role = RoleOf(flag.role),
          .process = flag.name,
          .address = flag.listen,
          .scheduler = loop.loaded.scheduler,
          .prefill_tokens_per_second = loop.loaded.prefill_tokens_per_second,
          .min_path_gbps = flags_.min_path_gbps,
          .step_record = step_record_.get(),
          .step_record_part = workers_++,
          .last_word_ms = flags_.wedged_restart_ms > 0 ? flags_.wedged_restart_ms : WorkerOptions{}.last_word_ms,
          .verify_kv = flags_.verify_kv,
          .watchdog = {.wedged_after_ms = flags_.wedged_after_ms, .restart_after_ms = flags_.wedged_restart_ms},
          .on_stuck = [this, &loop](const std::string& reason) { EndStuck(loop, reason); },
          .mute_handoff = flags_.mute_handoff,
          .abort_on_leak = flags_.abort_on_leak,
          .report_lost = [this](const proto::WorkerLost& lost) { link_->ReportLost(lost); },
          .gpu_gauges = [this] { return gpu_ ? gpu_->Now() : std::nullopt; }};
      BATON_ASSIGN_OR_RETURN(auto worker, Worker::Create(*network_, *loop.steps, *loop.transport, std::move(options)));
      loop.workers.push_back(std::move(worker));
    }
    return absl::OkStatus();
  }

  // A trace of the thread that hangs comes with its death. One that not even a signal reaches is killed.
  void EndStuck(const EngineLoop& loop, const std::string& reason) {
    LogError(reason, ": ending this process; where its step loop is follows");
    pthread_kill(loop.thread, SIGABRT);
    last_resort_ = network_->RunAfter(kAbortMs, [this, reason] {
      proto::WorkerLost lost;
      lost.set_worker(flags_.worker.id);
      lost.set_incarnation(flags_.child.incarnation);
      lost.set_reason(reason);
      link_->ReportLost(lost);
    });
  }

  // The first one on this thread. One that ends, ends all: the process does.
  void RunLoops() {
    const auto run = [this](EngineLoop& loop) {
      loop.thread = pthread_self();
      loop.status = loop.steps->Run();
      for (const auto& other : loops_) other->steps->Stop();
    };
    std::vector<std::thread> threads;
    for (size_t i = 1; i < loops_.size(); ++i) threads.emplace_back(run, std::ref(*loops_[i]));
    run(*loops_.front());
    for (std::thread& thread : threads) thread.join();
  }

  const WorkerFlags& flags_;
  MemberNews news_;
  std::unique_ptr<ChildLink> link_;
  std::unique_ptr<StepRecord> step_record_;
  size_t workers_ = 0;
  std::optional<GpuWatch> gpu_;  // which workers ask
  std::vector<std::unique_ptr<EngineLoop>> loops_;
  std::unique_ptr<Timer> last_resort_;
  std::unique_ptr<Network> network_;  // goes first
};

}  // namespace

int RunWorker(const WorkerFlags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  ConfigureLogging(flags.child.process.empty() ? flags.worker.role : flags.child.process,
                   flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText,
                   flags.common.verbose ? LogLevel::kDebug : LogLevel::kInfo);
  InstallCrashHandler(flags.child.process.empty() ? flags.worker.role : flags.child.process,
                      flags.common.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  const absl::Status status = WorkerProcess(flags).Serve();
  return status.ok() ? 0 : ExitCode(status);
}

}  // namespace baton
