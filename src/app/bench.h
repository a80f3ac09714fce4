#pragma once

#include "app/options.h"

namespace baton {

// Loads the server at flags.url and reports; the exit code of `baton bench serve`.
int RunBenchServe(const BenchServeFlags& flags);
// Times an engine's steps in this process (bench_engine.cc); the exit code of `baton bench engine`.
int RunBenchEngine(const BenchEngineFlags& flags);

}  // namespace baton
