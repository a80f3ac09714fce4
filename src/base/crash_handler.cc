#include "base/crash_handler.h"

#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "absl/debugging/failure_signal_handler.h"
#include "absl/debugging/stacktrace.h"
#include "absl/debugging/symbolize.h"

namespace baton {
namespace {

char g_process[65];
bool g_json = false;

void WriteText(const char* text, size_t size) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, size);
}
void WriteText(const char* text) { WriteText(text, std::strlen(text)); }

// One line of the trace. Only calls that are safe in a signal handler; null: the end.
void WriteLine(const char* line) {
  if (line == nullptr) return;
  const size_t size = std::strcspn(line, "\n");
  WriteText(g_json ? "{\"level\":\"critical\",\"process\":\"" : "[");
  WriteText(g_process);
  WriteText(g_json ? "\",\"message\":\"" : "] ");
  for (size_t i = 0; i < size; ++i) {
    if (g_json && (line[i] == '"' || line[i] == '\\')) WriteText("\\");
    WriteText(line + i, 1);
  }
  WriteText(g_json ? "\"}\n" : "\n");
}

// Frames from the place of the crash outwards.
struct Frames {
  void** pcs;
  int count;
  int count_max;
  uintptr_t crash_pc;  // 0: from the innermost frame
};

_Unwind_Reason_Code AddFrame(_Unwind_Context* context, void* argument) {
  Frames& frames = *static_cast<Frames*>(argument);
  const uintptr_t pc = _Unwind_GetIP(context);
  if (frames.crash_pc != 0 && pc != frames.crash_pc) return _URC_NO_REASON;  // the handler's own
  frames.crash_pc = 0;
  if (frames.count == frames.count_max) return _URC_END_OF_STACK;
  frames.pcs[frames.count++] = reinterpret_cast<void*>(pc);
  return _URC_NO_REASON;
}

// Abseil's own follows frame pointers, which optimized code and the C library do not keep.
int Unwind(void** pcs, int* sizes, int depth_max, int, const void* context, int* dropped) {
  Frames frames{.pcs = pcs, .count_max = depth_max};
#if defined(__x86_64__)
  if (context != nullptr) {
    frames.crash_pc = static_cast<uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  }
#endif
  _Unwind_Backtrace(AddFrame, &frames);
  if (sizes != nullptr) std::fill_n(sizes, frames.count, 0);
  if (dropped != nullptr) *dropped = 0;
  return frames.count;
}

}  // namespace

void InstallCrashHandler(std::string_view process, LogFormat format) {
  const size_t size = std::min(process.size(), sizeof(g_process) - 1);
  std::copy_n(process.data(), size, g_process);
  g_json = format == LogFormat::kJson;
  absl::InitializeSymbolizer("/proc/self/exe");
  absl::SetStackUnwinder(Unwind);
  absl::FailureSignalHandlerOptions options;
  options.writerfn = WriteLine;
  absl::InstallFailureSignalHandler(options);
  std::signal(SIGTERM, SIG_DFL);  // an order, not a failure
}

}  // namespace baton
