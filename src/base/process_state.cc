#include "base/process_state.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/status.h"
#include "base/unique_fd.h"

namespace baton {
namespace {

constexpr int kThreadsMax = 4096;

bool ReadStat(const std::string& path, char& state, uint64_t& cpu_ticks) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return false;
  char line[1024];
  const ssize_t bytes = read(fd.get(), line, sizeof(line));
  return bytes > 0 && ParseProcessStat({line, static_cast<size_t>(bytes)}, state, cpu_ticks);
}

bool WantsProcessor(char state) { return state == 'R' || state == 'D'; }

// Whether a thread of the process runs or waits for a processor or a device.
bool AnyThreadActive(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> threads(opendir(folder.c_str()), closedir);
  if (threads == nullptr) return false;
  for (int i = 0; i < kThreadsMax; ++i) {
    const dirent* entry = readdir(threads.get());
    if (entry == nullptr) return false;
    char state;
    uint64_t ticks;
    if (entry->d_name[0] != '.' && ReadStat(Cat(folder, "/", std::string_view(entry->d_name), "/stat"), state, ticks) &&
        WantsProcessor(state)) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string_view ProcessStateText(ProcessState state) {
  switch (state) {
    case ProcessState::kStopped:
      return "stopped";
    case ProcessState::kTraced:
      return "stopped by a debugger";
    case ProcessState::kActive:
      return "at work or waiting for a processor";
    case ProcessState::kIdle:
      return "asleep";
    case ProcessState::kUnknown:
      break;
  }
  return "in a state that cannot be seen from here";
}

bool ParseProcessStat(std::string_view line, char& state, uint64_t& cpu_ticks) {
  const size_t name_end = line.rfind(')');  // a name may contain anything, parentheses too
  if (name_end == std::string_view::npos || name_end + 3 >= line.size()) return false;
  line.remove_prefix(name_end + 2);
  state = line.front();
  cpu_ticks = 0;
  // Fields 14 and 15 of the manual page; `state` is field 3.
  for (int field = 3; field <= 15; ++field) {
    const size_t end = std::min(line.find(' '), line.size());
    if (field >= 14) {
      uint64_t ticks = 0;
      if (std::from_chars(line.data(), line.data() + end, ticks).ec != std::errc()) return false;
      cpu_ticks += ticks;
    }
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return true;
}

ProcessState ProcessWatch::Look() {
  if (pid_ <= 0) return ProcessState::kUnknown;
  const std::string folder = Cat("/proc/", pid_);
  char state;
  uint64_t ticks;
  if (!ReadStat(folder + "/stat", state, ticks)) return ProcessState::kUnknown;
  const bool worked = looked_ && ticks != cpu_ticks_;
  cpu_ticks_ = ticks;
  looked_ = true;
  if (state == 'T') return ProcessState::kStopped;
  if (state == 't') return ProcessState::kTraced;
  if (state == 'Z' || state == 'X') return ProcessState::kUnknown;
  return worked || WantsProcessor(state) || AnyThreadActive(folder + "/task") ? ProcessState::kActive
                                                                              : ProcessState::kIdle;
}

}  // namespace baton
