// Folders: engine
// Prints how fast an engine is, each number with its share of the machine's read bandwidth as measured in the same run.
//
//   engine_speed_oracle MODEL [threads=N] [isa=NAME] [kv=F16|I8] [seconds=S] [only=NAME] [weights=TYPE]
//
// With weights=, MODEL is a shape, and its matrices are random blocks of that type.
// Lines: decode at batch 1, 8 and 32 with short and long contexts, prefill of 256, 512 and 1,500 tokens.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <thread>

#include "engine/llama.h"

namespace {

using Clock = std::chrono::steady_clock;

// CPU time of all threads: what a step costs even when other programs share the machine.
double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

template <typename T>
T Check(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cerr << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}

// GB/s of reading memory that is larger than the caches, with `threads` threads: the best of some tries.
double ReadBandwidth(int threads) {
  constexpr size_t kBytes = size_t{96} << 20;
  std::vector<uint64_t> memory(kBytes / sizeof(uint64_t), 1);
  std::vector<uint64_t> sums(threads * 16);
  double best = 0;
  for (int trial = 0; trial < 12; ++trial) {
    const auto begin = Clock::now();
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        const size_t share = memory.size() / threads;
        uint64_t lanes[16] = {};
        for (size_t i = 0; i + 16 <= share; i += 16) {
          for (int lane = 0; lane < 16; ++lane) lanes[lane] += memory[t * share + i + lane];
        }
        sums[t * 16] = std::accumulate(lanes, lanes + 16, uint64_t{0});
      });
    }
    for (std::thread& worker : workers) worker.join();
    best = std::max(best, kBytes / Seconds(Clock::now() - begin) / 1e9);
  }
  return best;
}

// Any bytes are a block, but for its scales, which should be ordinary numbers.
void FillBlocks(baton::DType dtype, uint8_t* data, int64_t bytes, std::mt19937_64& random) {
  const baton::DTypeTraits traits = baton::TraitsOf(dtype);
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = random() & (traits.block_elements == 1 ? 0xbfffbfffbfffbfff : ~uint64_t{0});
    std::memcpy(data + i, &word, 8);
  }
  if (traits.block_elements == 1) return;
  const int at = dtype == baton::DType::kQ6_K ? 208 : 0;
  const bool minimum = dtype != baton::DType::kQ6_K && traits.block_bytes % 4 == 0;  // Q4_1, Q5_1, Q4_K, Q5_K
  const uint16_t scales[2] = {0x1000, 0x9000};
  for (int64_t i = 0; i < bytes; i += traits.block_bytes) std::memcpy(data + i + at, scales, minimum ? 4 : 2);
}

baton::Model RandomModel(const std::string& shape, const std::string& type) {
  baton::ModelParts parts;
  parts.config = Check(baton::LoadModel(shape, baton::LoadFormat::kDummy)).config();
  baton::DType dtype = baton::DType::kF32;
  while (baton::TraitsOf(dtype).name != type) {
    if (baton::TraitsOf(dtype).block_bytes == 0) Check<int>(baton::InvalidArgument("no weights of type ", type));
    dtype = static_cast<baton::DType>(static_cast<int>(dtype) + 1);
  }
  const int64_t together = baton::TraitsOf(dtype).block_elements;
  parts.config.hidden_size = static_cast<int32_t>((parts.config.hidden_size + together - 1) / together * together);
  parts.config.num_heads =
      parts.config.hidden_size / parts.config.head_dim / parts.config.num_kv_heads * parts.config.num_kv_heads;
  std::mt19937_64 random(1);
  for (const baton::WeightSpec& spec : baton::ExpectedWeights(parts.config)) {
    const bool matrix = spec.shape.size() == 2;
    baton::TensorView view = {matrix ? dtype : baton::DType::kF32, spec.shape};
    view.bytes = view.rows() * baton::DTypeRowBytes(view.dtype, view.columns());
    auto memory = std::make_shared<std::vector<uint8_t>>(view.bytes + 8);
    if (matrix) FillBlocks(dtype, memory->data(), view.bytes, random);
    if (!matrix) std::fill_n(reinterpret_cast<float*>(memory->data()), view.columns(), 1.0f);
    view.data = memory->data();
    parts.memory.push_back(memory);
    parts.tensors.emplace(spec.name, view);
  }
  return Check(baton::Model::Create(std::move(parts), type));
}

class Speed {
 public:
  Speed(baton::Engine& engine, double seconds, std::string only)
      : engine_(engine), seconds_(seconds), only_(std::move(only)) {
    std::mt19937 random(1);
    for (baton::TokenId& token : tokens_) token = static_cast<int32_t>(random() % engine.info().vocabulary);
  }

  // Steps in which each of `sequences` sequences has `count` new tokens after `context`; the median's tokens/s.
  void Measure(const std::string& name, int sequences, int context, int count, double bytes_per_step, double peak) {
    if (!only_.empty() && name.find(only_) == std::string::npos) return;
    baton::Batch batch;
    std::vector<std::vector<baton::BlockId>> tables(sequences);
    const int blocks = engine_.info().kv.BlocksFor(context + count);
    baton::SamplingParams sampling;
    sampling.temperature = 0;
    for (int s = 0; s < sequences; ++s) {
      for (int b = 0; b < blocks; ++b) tables[s].push_back(s * blocks + b);
      baton::BatchItem item;
      item.tokens = tokens_;
      item.prompt_length = context + count;
      item.start = context;
      item.count = count;
      item.block_table = tables[s];
      item.sample = true;
      item.sampling = &sampling;
      batch.items.push_back(item);
    }
    std::vector<double> times;
    std::vector<double> cpu_times;
    const auto begin = Clock::now();
    while (times.size() < 5 || Seconds(Clock::now() - begin) < seconds_) {
      const auto step = Clock::now();
      const double cpu = CpuSeconds();
      Check(engine_.Run(batch, nullptr));
      times.push_back(Seconds(Clock::now() - step));
      cpu_times.push_back(CpuSeconds() - cpu);
    }
    std::sort(times.begin(), times.end());
    std::sort(cpu_times.begin(), cpu_times.end());
    const double median = times[times.size() / 2];
    std::printf("%-24s %8.1f tok/s (best %8.1f)  step %8.3f ms, %8.1f tok/s of CPU time", name.c_str(),
                sequences * count / median, sequences * count / times[0], median * 1e3,
                sequences * count / cpu_times[cpu_times.size() / 2]);
    if (bytes_per_step > 0)
      std::printf("  %5.1f GB/s = %3.0f %% of read", bytes_per_step / median / 1e9,
                  100 * bytes_per_step / median / 1e9 / peak);
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  baton::Engine& engine_;
  double seconds_;
  std::string only_;
  std::vector<baton::TokenId> tokens_ = std::vector<baton::TokenId>(2048);
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: engine_speed_oracle MODEL [threads=N] [isa=NAME] [kv=TYPE] [seconds=S] [only=NAME] "
                 "[weights=TYPE]\n";
    return 2;
  }
  baton::CpuOptions cpu;
  double seconds = 1;
  std::string only, weights_type;
  baton::EngineOptions options;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("threads=")) cpu.threads = std::atoi(argument.c_str() + 8);
    if (argument.starts_with("isa=")) cpu.instruction_set = argument.substr(4);
    if (argument.starts_with("seconds=")) seconds = std::atof(argument.c_str() + 8);
    if (argument.starts_with("only=")) only = argument.substr(5);
    if (argument.starts_with("weights=")) weights_type = argument.substr(8);
    if (argument == "kv=I8") options.kv_dtype = baton::DType::kI8;
  }
  const baton::Model model =
      weights_type.empty() ? Check(baton::LoadModel(argv[1])) : RandomModel(argv[1], weights_type);
  options.kv_bytes = int64_t{640} << 20;
  const auto begin = Clock::now();
  auto engine = Check(baton::CreateLlamaEngine(model, Check(baton::CreateCpuBackend(cpu)), options));
  const double peak = ReadBandwidth(cpu.threads);
  const double weights = static_cast<double>(model.weight_bytes());
  const double token = static_cast<double>(engine->info().kv.token_bytes());
  std::printf("%s, weights %s, KV %s: loaded in %.2f s, %.1f MB of weights, read bandwidth %.1f GB/s\n",
              engine->info().device.c_str(), weights_type.empty() ? "of the model" : weights_type.c_str(),
              std::string(baton::TraitsOf(engine->info().kv.dtype).name).c_str(), Seconds(Clock::now() - begin),
              weights / 1e6, peak);
  std::fflush(stdout);  // who times the lines from outside must see where the first measurement begins
  Speed speed(*engine, seconds, only);
  for (int batch : {1, 8, 32}) {
    for (int context : {0, 512}) {
      speed.Measure("decode b" + std::to_string(batch) + " context " + std::to_string(context), batch, context, 1,
                    weights + batch * context * token, peak);
    }
  }
  for (int count : {256, 512, 1500}) speed.Measure("prefill " + std::to_string(count), 1, 0, count, 0, peak);
  return 0;
}
