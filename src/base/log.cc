#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>

namespace baton {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

LogFormat g_format = LogFormat::kText;

std::string EscapeJson(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out;
}

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = spdlog::stderr_color_mt("baton");
  return *logger;
}

}  // namespace

void ConfigureLogging(std::string_view process, LogFormat format, LogLevel level) {
  g_format = format;
  const std::string name(process);
  Logger().set_level(ToSpdlog(level));
  Logger().set_pattern(format == LogFormat::kJson
                           ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%e%z\",\"level\":\"%l\",\"process\":\"" + EscapeJson(name) +
                                 "\",\"pid\":%P,\"message\":\"%v\"}"
                           : "%H:%M:%S.%e %^%L%$ [" + name + "] %v");
  Logger().flush_on(spdlog::level::debug);
}

bool LogEnabled(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void WriteLog(LogLevel level, std::string_view message) {
  if (!LogEnabled(level)) return;
  const std::string text = g_format == LogFormat::kJson ? EscapeJson(message) : std::string(message);
  Logger().log(ToSpdlog(level), "{}", text);
}

}  // namespace baton
