#include "supervisor/supervisor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/log.h"

namespace baton {
namespace {

constexpr int kLifelineFd = 3;    // where a child finds the pipe that ends with the supervisor
constexpr int kStepRecordFd = 4;  // and where a worker finds its record of steps
constexpr auto kTick = std::chrono::milliseconds(50);
constexpr auto kFirstBackOff = std::chrono::milliseconds(100);
constexpr auto kLongestBackOff = std::chrono::milliseconds(5000);
constexpr auto kLongLife = std::chrono::seconds(30);  // a death after this is the first in a row again
constexpr int kFailuresBeforeReady = 3;

sigset_t SupervisorSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM}) sigaddset(&signals, signal);
  return signals;
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return Cat("was ended by signal ", WTERMSIG(wait_status), " (", strsignal(WTERMSIG(wait_status)), ")");
  return Cat("ended with code ", WEXITSTATUS(wait_status));
}

// By its own doing: a crash, or an error that it gave up for. Other signals are somebody's order.
bool IsSelfInflicted(int wait_status) {
  if (WIFEXITED(wait_status)) return WEXITSTATUS(wait_status) != 0;
  constexpr int kCrashes[] = {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
  return std::find(std::begin(kCrashes), std::end(kCrashes), WTERMSIG(wait_status)) != std::end(kCrashes);
}

// Between fork and exec: only calls that are safe there.
void Inherit(int fd, int as) {
  if (fd == as) {
    fcntl(fd, F_SETFD, 0);
  } else if (dup2(fd, as) < 0) {
    _exit(127);
  }
}

[[noreturn]] void Execute(const char* program, char* const* argv, int lifeline, int step_record) {
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Away from the places of both, so that neither covers the other.
  lifeline = fcntl(lifeline, F_DUPFD_CLOEXEC, kStepRecordFd + 1);
  if (step_record >= 0) Inherit(fcntl(step_record, F_DUPFD_CLOEXEC, kStepRecordFd + 1), kStepRecordFd);
  Inherit(lifeline, kLifelineFd);
  execv(program, argv);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::string> CreateRunFolder() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  std::string folder = Cat(runtime != nullptr && *runtime != 0 ? runtime : "/tmp", "/baton-XXXXXX");
  if (mkdtemp(folder.data()) == nullptr) {
    folder = "/tmp/baton-XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) return Errno("mkdtemp", folder);
  }
  return folder;
}

void BlockSignals() {
  const sigset_t signals = SupervisorSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

Supervisor::Supervisor(Network& network, SupervisorOptions options) : network_(network), options_(std::move(options)) {
  MutexLock lock(mutex_);
  for (const ChildSpec& spec : options_.children) children_.push_back({.spec = spec});
}

Supervisor::~Supervisor() {
  listener_.reset();
  MutexLock lock(mutex_);
  for (Child& child : children_) {
    if (child.session != nullptr) child.session->Close();
  }
}

absl::Status Supervisor::Run() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Errno("pipe2", "for the children's lifeline");
  lifeline_read_ = UniqueFd(ends[0]);
  lifeline_write_ = UniqueFd(ends[1]);
  BATON_ASSIGN_OR_RETURN(listener_, network_.Listen(options_.address, [this](std::shared_ptr<Session> s) {
    return Accept(std::move(s));
  }));
  const sigset_t signals = SupervisorSignals();
  absl::Status failure;
  {
    MutexLock lock(mutex_);
    for (Child& child : children_) child.restart_at = Clock::now();
  }
  while (true) {
    {
      MutexLock lock(mutex_);
      absl::Status status = Reap();
      if (status.ok()) status = StartDue();
      if (!status.ok() && failure.ok()) {
        failure = status;
        stopping_ = true;
        KillAll(SIGKILL);
      }
      if (stopping_) DrainNext();
      if (stopping_ && !AnyRunning()) return failure;
    }
    const timespec wait{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(kTick).count()};
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    if (signal == SIGINT || signal == SIGTERM) {
      MutexLock lock(mutex_);
      OnStopSignal();
    }
  }
}

absl::Status Supervisor::StartChild(Child& child) {
  child.incarnation += 1;
  child.state = proto::Member::STARTING;
  child.restart_at.reset();
  child.ordered_to_die = false;
  child.started = Clock::now();
  std::vector<std::string> arguments{"baton"};
  arguments.insert(arguments.end(), child.spec.arguments.begin(), child.spec.arguments.end());
  for (const std::string& argument : {std::string("--supervisor"), options_.address, std::string("--lifeline-fd"),
                                      Cat(kLifelineFd), std::string("--incarnation"), Cat(child.incarnation)}) {
    arguments.push_back(argument);
  }
  if (!child.spec.is_front_end()) {
    BATON_ASSIGN_OR_RETURN(child.steps, StepRecord::Create(child.spec.workers.size()));
    arguments.insert(arguments.end(), {"--step-record-fd", Cat(kStepRecordFd)});
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const int pid = fork();
  if (pid < 0) return Errno("fork", child.spec.process);
  const int step_record = child.steps == nullptr ? -1 : child.steps->fd();
  if (pid == 0) Execute(options_.program.c_str(), argv.data(), lifeline_read_.get(), step_record);
  child.pid = pid;
  LogDebug("started ", child.spec.process, " (pid ", pid, ", incarnation ", child.incarnation, ")");
  return absl::OkStatus();
}

absl::Status Supervisor::StartDue() {
  bool changed = false;
  for (Child& child : children_) {
    if (stopping_ || !child.restart_at || Clock::now() < *child.restart_at) continue;
    BATON_RETURN_IF_ERROR(StartChild(child));
    changed = true;
  }
  if (changed) Broadcast();
  return absl::OkStatus();
}

absl::Status Supervisor::Reap() {
  absl::Status failure;
  for (Child& child : children_) {
    int wait_status;
    if (child.pid < 0 || waitpid(child.pid, &wait_status, WNOHANG) != child.pid) continue;
    const absl::Status status = OnExit(child, wait_status);
    if (failure.ok()) failure = status;
    Broadcast();
  }
  return failure;
}

// Empty when it died in no step, or in one that is not known: then everybody is suspected.
std::vector<std::vector<uint64_t>> Supervisor::ReadSteps(const Child& child) {
  std::vector<std::vector<uint64_t>> steps;
  bool any = false;
  for (size_t i = 0; child.steps != nullptr && i < child.spec.workers.size(); ++i) {
    std::optional<std::vector<uint64_t>> names = child.steps->Read(i);
    if (!names) return {};
    any = any || !names->empty();
    steps.push_back(*std::move(names));
  }
  if (!any) steps.clear();
  return steps;
}

absl::Status Supervisor::OnExit(Child& child, int wait_status) {
  child.last_steps = ReadSteps(child);
  child.pid = -1;
  child.state = proto::Member::DEAD;
  child.session.reset();
  child.death = DescribeExit(wait_status);
  child.self_inflicted = !child.ordered_to_die && IsSelfInflicted(wait_status);
  const std::string how = Cat(child.spec.process, " ", child.death);
  if (stopping_) {
    LogDebug(how);
    return absl::OkStatus();
  }
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == kExitConfiguration) {
    return FailedPrecondition(how, ": it cannot work as it was told to; its own message is above");
  }
  if (child.spec.is_front_end() && options_.end_with_front_end) {
    return FailedPrecondition(how, ", and --on-frontend-death stop ends everything with it");
  }
  child.failures = Clock::now() - child.started > kLongLife ? 1 : child.failures + 1;
  if (!child.was_ready && child.failures >= kFailuresBeforeReady) {
    return FailedPrecondition(how, " for the ", child.failures,
                              "th time before it was ready; its own messages are above");
  }
  const auto back_off = std::min(kLongestBackOff, kFirstBackOff * (1 << std::min(child.failures - 1, 10)));
  child.restart_at = Clock::now() + back_off;
  LogWarning(how, "; starting it again in ", back_off.count(), " ms");
  return absl::OkStatus();
}

proto::Members Supervisor::MemberList() const {
  proto::Members members;
  for (const Child& child : children_) {
    for (size_t i = 0; i < child.spec.workers.size(); ++i) {
      const WorkerSpec& worker = child.spec.workers[i];
      proto::Member* member = members.add_members();
      member->set_worker(worker.id.value);
      member->set_incarnation(child.incarnation);
      member->set_role(worker.role);
      member->set_process(worker.name);
      member->set_address(worker.address);
      member->set_state(child.state);
      member->set_device(child.device);
      if (child.state != proto::Member::DEAD) continue;
      member->set_death(child.death);
      member->set_self_inflicted(child.self_inflicted);
      member->set_died_in_step(!child.last_steps.empty());
      if (child.last_steps.empty()) continue;
      for (const uint64_t name : child.last_steps[i]) member->add_step_requests(name);
    }
  }
  return members;
}

void Supervisor::Broadcast() {
  proto::Envelope envelope;
  *envelope.mutable_members() = MemberList();
  for (Child& child : children_) {
    if (child.session != nullptr) SendEnvelope(*child.session, envelope);
  }
}

SessionEvents Supervisor::Accept(std::shared_ptr<Session> session) {
  return {.on_frame = [this, session](std::string_view frame, UniqueFd) { OnFrame(session, frame); },
          .on_closed =
              [this, session](absl::Status why) {
                MutexLock lock(mutex_);
                Child* child = FindSession(session);
                if (child == nullptr) return;
                child->session.reset();
                if (!absl::IsDeadlineExceeded(why)) return;  // it is going by itself
                proto::WorkerLost lost;                      // the front end is worker 0
                lost.set_incarnation(child->incarnation);
                lost.set_reason(std::string(Message(why)));
                OnLost(lost);
              },
          .watched = IsFrontEnd(session->peer_pid())};
}

bool Supervisor::IsFrontEnd(int pid) {
  MutexLock lock(mutex_);
  return std::ranges::any_of(children_,
                             [pid](const Child& child) { return child.spec.is_front_end() && child.pid == pid; });
}

Supervisor::Child* Supervisor::FindSession(const std::shared_ptr<Session>& session) {
  for (Child& child : children_) {
    if (child.session == session) return &child;
  }
  return nullptr;
}

void Supervisor::OnFrame(const std::shared_ptr<Session>& session, std::string_view frame) {
  proto::Envelope envelope;
  if (const absl::Status status = ParseEnvelope(frame, envelope); !status.ok()) {
    LogError("a child's message: ", Message(status));
    return session->Close();
  }
  std::string process;
  {
    MutexLock lock(mutex_);
    if (envelope.has_hello()) {
      for (Child& child : children_) {
        const bool same = child.spec.Has({envelope.hello().worker()});
        if (!same || child.incarnation != envelope.hello().incarnation()) continue;
        child.session = session;
        proto::Envelope answer;
        *answer.mutable_members() = MemberList();
        SendEnvelope(*session, answer);
      }
      return;
    }
    if (envelope.has_worker_lost()) return OnLost(envelope.worker_lost());
    Child* child = FindSession(session);
    if (child == nullptr || !envelope.has_progress()) return;
    process = child->spec.process;
    child->device = envelope.progress().device();
    if (envelope.progress().stage() == "ready" && child->pid >= 0) {
      child->state = proto::Member::READY;
      child->was_ready = true;
      Broadcast();
    }
  }
  if (options_.on_progress) options_.on_progress(envelope.progress(), process);
}

void Supervisor::OnLost(const proto::WorkerLost& lost) {
  for (Child& child : children_) {
    if (!child.spec.Has({lost.worker()}) || child.incarnation != lost.incarnation() || child.pid < 0) continue;
    LogWarning(child.spec.process, " is lost (", lost.reason(), "): killing it, so that it writes no more");
    child.ordered_to_die = true;
    kill(child.pid, SIGKILL);  // works on a stopped process too; the reap follows
  }
}

void Supervisor::OnStopSignal() {
  if (stopping_) {
    LogWarning("stopping at once");
    return KillAll(SIGKILL);
  }
  stopping_ = true;
  drain_deadline_ = Clock::now() + std::chrono::milliseconds(options_.drain_timeout_ms);
  LogInfo("draining: finishing what is there, for at most ", options_.drain_timeout_ms / 1000,
          " s; Ctrl-C again stops at once");
  proto::Envelope envelope;
  envelope.mutable_drain();
  for (Child& child : children_) {
    if (!child.spec.is_front_end() || child.pid < 0) continue;
    if (child.session != nullptr) {
      SendEnvelope(*child.session, envelope);
    } else {
      kill(child.pid, SIGTERM);
    }
  }
}

// The front end ends by itself once it has drained; then the workers have nothing left to do.
void Supervisor::DrainNext() {
  const bool late = Clock::now() > drain_deadline_;
  bool front_end_runs = false;
  for (const Child& child : children_) front_end_runs |= child.spec.is_front_end() && child.pid >= 0;
  if (front_end_runs && !late) return;
  KillAll(SIGKILL);
}

void Supervisor::KillAll(int signal) {
  for (const Child& child : children_) {
    if (child.pid >= 0) kill(child.pid, signal);
  }
}

bool Supervisor::AnyRunning() const {
  return std::any_of(children_.begin(), children_.end(), [](const Child& child) { return child.pid >= 0; });
}

}  // namespace baton
