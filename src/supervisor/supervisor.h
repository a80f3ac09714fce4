// The small process that starts the front end and the workers, reaps them, kills whom others have lost, and starts them
// again.
//
// It is also the embedded registry: every child connects to it, reports how far it is, and hears about every change of
// the members. A member that is shown as dead, or with a higher incarnation, has been reaped: it writes no more.
//
// Children have process groups of their own (the terminal's Ctrl-C does not reach them) and learn of the supervisor's
// death by the end of a pipe. The first SIGINT or SIGTERM drains: the front end finishes what it has, then everybody
// ends; the second kills at once.
//
// The front end's session has heart-beats: one that is silent and idle, or stopped, is killed. (The router watches the
// workers.)
//
// Threading: Run on the main thread, with its signals blocked before any other thread exists (BlockSignals).
// Errors: a child that ends with kExitConfiguration, or a worker that dies again and again before it ever was ready,
// ends
//   everything with FailedPrecondition.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "core/ids.h"
#include "core/step_record.h"
#include "proto/baton.pb.h"
#include "rpc/envelope.h"

namespace baton {

constexpr int kExitConfiguration = 2;  // what a child was told cannot work: no use in starting it again

struct WorkerSpec {
  WorkerId id;
  proto::Role role = proto::HYBRID;
  std::string name;     // for people: "prefill-0"
  std::string address;  // where it listens for sessions
};

// A process. Its workers live and die together, and have its incarnation.
struct ChildSpec {
  std::string process;                 // for people: "prefill-0", "prefill-0+decode-0"
  std::vector<WorkerSpec> workers;     // none: the front end
  std::vector<std::string> arguments;  // after the program's name; incarnation and supervisor are added

  bool is_front_end() const { return workers.empty(); }
  // The front end is called worker 0.
  bool Has(WorkerId worker) const {
    return is_front_end() ? worker == WorkerId{}
                          : std::any_of(workers.begin(), workers.end(),
                                        [worker](const WorkerSpec& spec) { return spec.id == worker; });
  }
};

struct SupervisorOptions {
  std::string program = "/proc/self/exe";
  std::string address;  // "unix:/…/supervisor.sock"
  std::vector<ChildSpec> children;
  int64_t drain_timeout_ms = 30000;
  bool end_with_front_end = false;  // its death ends everything; else it is started again
  std::function<void(const proto::Progress&, const std::string& process)> on_progress;  // from the network's thread
};

// Creates a private folder (0700) for the sockets of one deployment.
absl::StatusOr<std::string> CreateRunFolder();

// Blocks the signals that the supervisor waits for, in this thread and those that it starts.
void BlockSignals();

class Supervisor {
 public:
  Supervisor(Network& network, SupervisorOptions options);
  ~Supervisor();
  // Returns when every child has ended, after a signal or a fatal error.
  absl::Status Run() BATON_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Child {
    ChildSpec spec;
    int pid = -1;  // -1: not running
    uint64_t incarnation = 0;
    proto::Member::State state = proto::Member::STARTING;
    std::string device;
    std::shared_ptr<Session> session;
    bool was_ready = false;             // ever
    int failures = 0;                   // in a row
    bool ordered_to_die = false;        // this incarnation, by the supervisor
    std::string death;                  // how the last incarnation ended
    bool self_inflicted = false;        // whether nobody had ordered it
    std::unique_ptr<StepRecord> steps;  // of this incarnation; null: the front end
    // Of the last incarnation's end: the batch of each worker; empty: it was in no step, or that is not known.
    std::vector<std::vector<uint64_t>> last_steps;
    Clock::time_point started;
    std::optional<Clock::time_point> restart_at;
  };

  absl::Status StartChild(Child& child) BATON_REQUIRES(mutex_);
  absl::Status Reap() BATON_REQUIRES(mutex_);
  static std::vector<std::vector<uint64_t>> ReadSteps(const Child& child);
  bool IsFrontEnd(int pid) BATON_EXCLUDES(mutex_);
  absl::Status OnExit(Child& child, int wait_status) BATON_REQUIRES(mutex_);
  absl::Status StartDue() BATON_REQUIRES(mutex_);
  void Broadcast() BATON_REQUIRES(mutex_);
  proto::Members MemberList() const BATON_REQUIRES(mutex_);
  SessionEvents Accept(std::shared_ptr<Session> session);
  void OnFrame(const std::shared_ptr<Session>& session, std::string_view frame);
  void OnLost(const proto::WorkerLost& lost) BATON_REQUIRES(mutex_);
  void OnStopSignal() BATON_REQUIRES(mutex_);
  void DrainNext() BATON_REQUIRES(mutex_);
  void KillAll(int signal) BATON_REQUIRES(mutex_);
  bool AnyRunning() const BATON_REQUIRES(mutex_);
  Child* FindSession(const std::shared_ptr<Session>& session) BATON_REQUIRES(mutex_);

  Network& network_;
  SupervisorOptions options_;
  std::unique_ptr<Listener> listener_;
  UniqueFd lifeline_read_, lifeline_write_;

  Mutex mutex_;
  std::vector<Child> children_ BATON_GUARDED_BY(mutex_);
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  Clock::time_point drain_deadline_ BATON_GUARDED_BY(mutex_);
};

}  // namespace baton
