// The composition root: one binary is every part of Baton.
#include <variant>

#include "app/bench.h"
#include "app/command_line.h"
#include "app/devices.h"
#include "app/processes.h"
#include "app/serve.h"

namespace baton {
namespace {

int Run(const ServeFlags& flags) { return RunServe(flags); }
int Run(const WorkerFlags& flags) { return RunWorker(flags); }
int Run(const FrontendProcessFlags& flags) { return RunFrontend(flags); }
int Run(const DevicesFlags&) { return RunDevices(); }
int Run(const BenchServeFlags& flags) { return RunBenchServe(flags); }
int Run(const BenchEngineFlags& flags) { return RunBenchEngine(flags); }

}  // namespace
}  // namespace baton

int main(int argc, char** argv) {
  const auto parsed = baton::ParseCommandLine(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  return std::visit([](const auto& flags) { return baton::Run(flags); }, std::get<baton::Command>(parsed));
}
