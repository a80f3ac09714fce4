#pragma once

#include "app/options.h"

namespace baton {

// Loads the server at flags.url and reports; the exit code of `baton bench serve`.
int RunBenchServe(const BenchServeFlags& flags);

}  // namespace baton
