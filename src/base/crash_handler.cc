#include "base/crash_handler.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "absl/debugging/failure_signal_handler.h"
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

}  // namespace

void InstallCrashHandler(std::string_view process, LogFormat format) {
  const size_t size = std::min(process.size(), sizeof(g_process) - 1);
  std::copy_n(process.data(), size, g_process);
  g_json = format == LogFormat::kJson;
  absl::InitializeSymbolizer("/proc/self/exe");
  absl::FailureSignalHandlerOptions options;
  options.writerfn = WriteLine;
  absl::InstallFailureSignalHandler(options);
  std::signal(SIGTERM, SIG_DFL);  // an order, not a failure
}

}  // namespace baton
