#include "base/process_state.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace baton {
namespace {

// A process of its own that does `work` until it is killed.
class Child {
 public:
  explicit Child(void (*work)()) : pid_(fork()) {
    if (pid_ == 0) {
      while (true) work();
    }
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  int pid() const { return pid_; }

 private:
  const int pid_;
};

bool Becomes(ProcessWatch& watch, ProcessState expected) {
  for (int i = 0; i < 500; ++i) {
    if (watch.Look() == expected) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(ProcessStateTest, AProcessThatIsStoppedIsSeenAndSeenToGoOn) {
  Child child([] { pause(); });
  ProcessWatch watch(child.pid());
  EXPECT_TRUE(Becomes(watch, ProcessState::kIdle));
  kill(child.pid(), SIGSTOP);
  EXPECT_TRUE(Becomes(watch, ProcessState::kStopped));
  kill(child.pid(), SIGCONT);
  EXPECT_TRUE(Becomes(watch, ProcessState::kIdle));
}

TEST(ProcessStateTest, AProcessAtWorkIsActive) {
  Child child([] {
    [[maybe_unused]] static volatile int work = 0;
    work = work + 1;
  });
  ProcessWatch watch(child.pid());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(watch.Look(), ProcessState::kActive);  // also when it has to wait for a processor
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(ProcessStateTest, WhatCannotBeSeenIsUnknown) {
  EXPECT_EQ(ProcessWatch(0).Look(), ProcessState::kUnknown);
  EXPECT_EQ(ProcessWatch(1 << 30).Look(), ProcessState::kUnknown);
  const int pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info;
  waitid(P_PID, pid, &info, WEXITED | WNOWAIT);  // it has ended and is not reaped
  EXPECT_EQ(ProcessWatch(pid).Look(), ProcessState::kUnknown);
  waitpid(pid, nullptr, 0);
}

TEST(ProcessStateTest, NamesWithParenthesesDoNotConfuse) {
  char state = 0;
  uint64_t ticks = 0;
  EXPECT_TRUE(ParseProcessStat("7 (a) b (c)) T 1 7 7 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0\n", state, ticks));
  EXPECT_EQ(state, 'T');
  EXPECT_EQ(ticks, 42u);
  EXPECT_FALSE(ParseProcessStat("", state, ticks));
  EXPECT_FALSE(ParseProcessStat("7 (baton)", state, ticks));
  EXPECT_FALSE(ParseProcessStat("7 (baton) R 1 2", state, ticks));
}

}  // namespace
}  // namespace baton
