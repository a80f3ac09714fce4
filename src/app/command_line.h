// The command line as a value.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "app/options.h"

namespace baton {

struct DevicesFlags {};

using Command =
    std::variant<ServeFlags, WorkerFlags, FrontendProcessFlags, BenchServeFlags, BenchEngineFlags, DevicesFlags>;

// The command, or the exit code when everything has been said already (help, version, a mistake).
std::variant<Command, int> ParseCommandLine(int argc, char** argv);

// The arguments that make a child see the same engine flags.
std::vector<std::string> EngineArguments(const EngineFlags& flags);

}  // namespace baton
