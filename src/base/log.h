// Logging for every process: LogInfo("worker ", id, " is ready in ", seconds, " s"). Text or JSON lines on stderr.
//
// Threading: any thread. Errors: none reported; a full pipe drops nothing and may block.
#pragma once

#include <string_view>

#include "base/status.h"

namespace baton {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Call once, before other threads start. `process` (for example "decode-0") stands in every line.
void ConfigureLogging(std::string_view process, LogFormat format, LogLevel level);
void WriteLog(LogLevel level, std::string_view message);
bool LogEnabled(LogLevel level);

template <typename... Parts>
void LogDebug(const Parts&... parts) {
  if (LogEnabled(LogLevel::kDebug)) WriteLog(LogLevel::kDebug, Cat(parts...));
}
template <typename... Parts>
void LogInfo(const Parts&... parts) {
  WriteLog(LogLevel::kInfo, Cat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  WriteLog(LogLevel::kWarning, Cat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  WriteLog(LogLevel::kError, Cat(parts...));
}

}  // namespace baton
