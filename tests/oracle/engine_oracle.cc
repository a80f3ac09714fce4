// Folders: engine
// Runs prompts greedily through a real engine, for Python tests that compare it with a reference.
//
//   engine_oracle MODEL [chunk=N] [threads=N] [block_size=N] [isa=NAME] [kv=F16|I8|F32] < prompts.jsonl
//
// Lines in and out: see engine_requests.h.
#include <boost/json/src.hpp>
#include <cstdlib>
#include <iostream>
#include <string>

#include "engine/llama.h"
#include "engine_requests.h"

namespace {

namespace json = boost::json;

struct Options {
  baton::CpuOptions cpu;
  baton::EngineOptions engine;
  int32_t chunk = 512;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  options.engine.max_batch_tokens = 4096;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "chunk") {
      options.chunk = std::atoi(value.c_str());
    } else if (name == "threads") {
      options.cpu.threads = std::atoi(value.c_str());
    } else if (name == "block_size") {
      options.engine.block_size = std::atoi(value.c_str());
    } else if (name == "isa") {
      options.cpu.instruction_set = value;
    } else if (name == "kv") {
      options.engine.kv_dtype = value == "F32"  ? baton::DType::kF32
                                : value == "I8" ? baton::DType::kI8
                                                : baton::DType::kF16;
    } else {
      std::cerr << "unknown option " << argument << "\n";
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: engine_oracle MODEL [chunk=N] [threads=N] [block_size=N] [isa=NAME] [kv=TYPE] < prompts\n";
    return 2;
  }
  const Options options = ParseOptions(argc, argv);
  const baton::Model model = baton::Check(baton::LoadModel(argv[1]));
  auto engine =
      baton::Check(baton::CreateLlamaEngine(model, baton::Check(baton::CreateCpuBackend(options.cpu)), options.engine));
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << json::serialize(baton::Generate(*engine, json::parse(line).as_object(), options.chunk)) << std::endl;
  }
  return 0;
}
