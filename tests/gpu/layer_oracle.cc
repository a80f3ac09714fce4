// Folders: engine
// Runs prompts greedily through the engine on a GPU, and writes what each layer computed, for Python tests that compare
// it with a reference.
//
//   layer_oracle MODEL [kv=FP8|BF16] [chunk=N] [own_gemm=0|1] [out=FOLDER] < requests.jsonl
//
// Lines in and out: see engine_requests.h. With out=, FOLDER/N.f32 holds of request N, as FP32: the residual stream
// [half of a layer][token][hidden] of all tokens but the last generated one, then the logits [generated
// token][vocabulary]. Without it decode steps run as CUDA graphs, as they do in a server.
#include <boost/json/src.hpp>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include "engine/llama.h"
#include "engine_requests.h"

namespace {

struct Options {
  baton::CudaOptions cuda;
  baton::EngineOptions engine;
  int32_t chunk = 512;
  std::string out;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  options.engine.max_batch_tokens = 1024;
  options.engine.kv_dtype = baton::DType::kF8E4M3;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "kv") {
      options.engine.kv_dtype = value == "BF16" ? baton::DType::kBF16 : baton::DType::kF8E4M3;
    } else if (name == "chunk") {
      options.chunk = std::atoi(value.c_str());
    } else if (name == "own_gemm") {
      options.cuda.own_gemm = value != "0";
    } else if (name == "out") {
      options.out = value;
    } else {
      std::cerr << "unknown option " << argument << "\n";
      std::exit(2);
    }
  }
  return options;
}

// Collects what the steps of one request compute, layer by layer.
class Recorder : public baton::StepObserver {
 public:
  void OnHalfLayer(int32_t half, std::span<const float> hidden) override {
    if (static_cast<size_t>(half) >= halves_.size()) halves_.resize(half + 1);
    halves_[half].insert(halves_[half].end(), hidden.begin(), hidden.end());
  }
  void OnLogits(std::span<const float> logits) override { logits_.insert(logits_.end(), logits.begin(), logits.end()); }
  void WriteAndClear(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    const auto write = [&](const std::vector<float>& values) {
      file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
    };
    for (const std::vector<float>& half : halves_) write(half);
    write(logits_);
    if (!file.flush()) {
      std::cerr << "cannot write " << path << "\n";
      std::exit(1);
    }
    halves_.clear();
    logits_.clear();
  }

 private:
  std::vector<std::vector<float>> halves_;
  std::vector<float> logits_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: layer_oracle MODEL [kv=FP8|BF16] [chunk=N] [own_gemm=0|1] [out=FOLDER] < requests.jsonl\n";
    return 2;
  }
  Options options = ParseOptions(argc, argv);
  Recorder recorder;
  if (!options.out.empty()) options.cuda.observer = &recorder;
  const baton::Model model = baton::Check(baton::LoadModel(argv[1]));
  auto engine = baton::Check(
      baton::CreateLlamaEngine(model, baton::Check(baton::CreateCudaBackend(options.cuda)), options.engine));
  std::string line;
  for (int number = 0; std::getline(std::cin, line); ++number) {
    const boost::json::object request = boost::json::parse(line).as_object();
    std::cout << boost::json::serialize(baton::Generate(*engine, request, options.chunk, /*prompt_scores=*/false))
              << std::endl;
    if (!options.out.empty()) recorder.WriteAndClear(options.out + "/" + std::to_string(number) + ".f32");
  }
  return 0;
}
