// Writes a stack trace of the thread that crashed to the log (stderr) when a signal such as SIGSEGV, SIGABRT or SIGBUS
// ends this process; the process then ends by that signal, as it would have without.
//
// Threading: install once, on the main thread (which gets a stack for the handler), before other threads. Errors: none;
// what cannot be named is shown as an address. Limits: 32 frames; one thread, the one that got the signal.
#pragma once

#include <string_view>

#include "base/log.h"

namespace baton {

// `process`: for people, as in ConfigureLogging; at most 64 characters of it are shown.
void InstallCrashHandler(std::string_view process, LogFormat format);

}  // namespace baton
