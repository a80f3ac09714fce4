// `baton bench serve URL`: loads any server that speaks OpenAI's completions, prints a table, writes JSON.
//
// Threading: runs on the caller's thread until the load has ended. Errors: printed to stderr.
#pragma once

#include <string>

#include "bench/report.h"
#include "bench/workload.h"

namespace baton {

struct BenchServeOptions {
  std::string url;
  std::string model;  // as served; "": the first one
  Workload workload;
  Targets targets;
  std::string json_path;  // "": none
};

// The process's exit code: 0, 1 when a request failed or the server could not be reached, 2 for settings that make no
// sense.
int BenchServe(const BenchServeOptions& options);

}  // namespace baton
