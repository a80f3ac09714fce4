// What another process of this machine is doing, as the kernel sees it: stopped, at work (or waiting for a processor),
// or asleep. It tells a worker that is frozen from one that is only slow.
//
// Threading: one thread. Ownership: none; a process id that was given to another process is not noticed.
// Errors: kUnknown for a process that cannot be seen (gone, on another machine, or in another PID namespace).
// Limits: looks at 4096 threads at most. A look costs about 15 µs for each thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace baton {

enum class ProcessState : uint8_t {
  kUnknown,
  kStopped,  // by SIGSTOP and the like: runs no more until it is told to
  kTraced,   // stopped by a debugger
  kActive,   // a thread runs, waits for a processor or for a device, or has run since the last look
  kIdle,     // every thread sleeps, and has slept since the last look
};

// For people: "stopped".
std::string_view ProcessStateText(ProcessState state);

class ProcessWatch {
 public:
  explicit ProcessWatch(int32_t pid) : pid_(pid) {}
  ProcessState Look();

 private:
  const int32_t pid_;
  uint64_t cpu_ticks_ = 0;  // at the last look
  bool looked_ = false;
};

// The two fields of a line of /proc/…/stat that matter here; false for text of another form.
bool ParseProcessStat(std::string_view line, char& state, uint64_t& cpu_ticks);

}  // namespace baton
