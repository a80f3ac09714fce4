#include "model/dummy.h"

#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "core/tensor_recipe.h"
#include "model/float_formats.h"
#include "model/normal_quantile.h"

namespace baton {
namespace {

constexpr int64_t kAlignment = 4096;          // bytes between beginnings of tensors
constexpr int64_t kChunkElements = 4 << 20;   // what a thread takes at a time
constexpr int64_t kRecipeElements = 1 << 20;  // more of them may stay a recipe
constexpr int32_t kWideTable = 1 << 16;       // entries, for 16 random bits
constexpr int32_t kFp8Table = 1 << 8;
constexpr double kFp8Largest = 448;

uint64_t TensorKey(std::string_view name, uint64_t seed) {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed);
}

// Elements as stored, by random bits. Shared by all tensors of one type and spread.
using Table = std::vector<uint8_t>;

Table WideTable(DType dtype, double mean, double deviation) {
  const int32_t bytes = TraitsOf(dtype).block_bytes;
  Table table(static_cast<size_t>(kWideTable) * bytes);
  const std::vector<double> normal = NormalQuantiles(kWideTable);
  for (int32_t i = 0; i < kWideTable; ++i) {
    const auto value = static_cast<float>(mean + deviation * normal[i]);
    uint8_t* entry = table.data() + static_cast<size_t>(i) * bytes;
    if (dtype == DType::kF32) {
      std::memcpy(entry, &value, sizeof(value));
    } else {
      const uint16_t bits = dtype == DType::kF16 ? FloatToHalf(value) : FloatToBfloat16(value);
      std::memcpy(entry, &bits, sizeof(bits));
    }
  }
  return table;
}

Table Fp8Table() {
  Table table(kFp8Table);
  const std::vector<double> normal = NormalQuantiles(kFp8Table);
  for (int32_t i = 0; i < kFp8Table; ++i) {
    table[i] = FloatToFp8E4M3(static_cast<float>(normal[i] / normal.back() * kFp8Largest));
  }
  return table;
}

// One tensor to make.
struct Job {
  std::string name;
  TensorView view;
  int64_t elements = 0;
  int64_t offset = 0;              // bytes from the start of the memory, if it has any
  double mean = 0, deviation = 0;  // not of FP8 elements, which fill their range
  TensorRecipe recipe;
};

bool IsQuantized(const ModelConfig& config, const WeightSpec& spec) {
  if (spec.kind != WeightKind::kLinear || config.quantization.scheme == QuantizationScheme::kNone) return false;
  const std::string_view module = std::string_view(spec.name).substr(0, spec.name.rfind('.'));
  return std::none_of(config.quantization.ignored.begin(), config.quantization.ignored.end(),
                      [&](const std::string& ignored) {
                        return ignored == module || (module == "lm_head" && ignored.find(module) != std::string::npos);
                      });
}

class Plan {
 public:
  explicit Plan(const ModelConfig& config) : config_(config) {
    for (const WeightSpec& spec : ExpectedWeights(config)) AddWeight(spec);
    if (!config.quantization.kv_cache_fp8) return;
    for (int32_t layer = 0; layer < config.num_layers; ++layer) {
      for (const char letter : {'k', 'v'}) {
        Add(Cat("model.layers.", layer, ".self_attn.", letter, "_scale"), {1}, DType::kF32, 1.0, 0);
      }
    }
  }

  std::vector<Job>& jobs() { return jobs_; }

 private:
  void Add(std::string name, std::vector<int64_t> shape, DType dtype, double mean, double deviation) {
    Job job{.name = std::move(name), .elements = 1, .mean = mean, .deviation = deviation};
    for (const int64_t extent : shape) job.elements *= extent;
    job.view = {.dtype = dtype, .shape = std::move(shape), .bytes = DTypeRowBytes(dtype, job.elements)};
    jobs_.push_back(std::move(job));
  }

  void AddWeight(const WeightSpec& spec) {
    const double deviation = 1 / std::sqrt(static_cast<double>(spec.shape.back()));
    if (spec.kind == WeightKind::kNorm) return Add(spec.name, spec.shape, config_.dtype, 1.0, 0.1);
    if (spec.kind == WeightKind::kBias) return Add(spec.name, spec.shape, config_.dtype, 0, 0.1);
    if (!IsQuantized(config_, spec)) return Add(spec.name, spec.shape, config_.dtype, 0, deviation);
    Add(spec.name, spec.shape, DType::kF8E4M3, 0, 0);
    // The largest of 256 quantiles stands at E4M3's largest number.
    const double scale = deviation * largest_quantile_ / kFp8Largest;
    const bool per_channel = config_.quantization.scheme == QuantizationScheme::kFp8PerChannelDynamic;
    Add(spec.name + "_scale", {per_channel ? spec.shape[0] : 1}, DType::kF32, scale, scale * (per_channel ? 0.1 : 0));
    if (config_.quantization.scheme != QuantizationScheme::kFp8PerTensorStatic) return;
    // Activations are about standard normal, with outliers.
    Add(spec.name.substr(0, spec.name.rfind('.')) + ".input_scale", {1}, DType::kF32, 8.0 / kFp8Largest, 0);
  }

  const ModelConfig& config_;
  const double largest_quantile_ = NormalQuantiles(kFp8Table).back();
  std::vector<Job> jobs_;
};

absl::StatusOr<std::shared_ptr<uint8_t>> MapMemory(int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return ResourceExhausted("dummy weights need ", bytes, " bytes, which cannot be mapped");
  ::madvise(data, size, MADV_HUGEPAGE);  // a hint: filling and uploading fault less often
  return std::shared_ptr<uint8_t>(static_cast<uint8_t*>(data), [size](uint8_t* memory) { ::munmap(memory, size); });
}

// Tables by what their entries are; nodes of a map stay where they are.
class Tables {
 public:
  const Table& For(const Job& job) {
    auto [it, added] = tables_.try_emplace({job.view.dtype, job.mean, job.deviation});
    if (added)
      it->second = job.view.dtype == DType::kF8E4M3 ? Fp8Table() : WideTable(job.view.dtype, job.mean, job.deviation);
    return it->second;
  }

 private:
  std::map<std::tuple<DType, double, double>, Table> tables_;
};

// What recipes point into; part of the model's memory.
struct Recipes {
  Tables tables;
  std::vector<std::unique_ptr<TensorRecipe>> recipes;
};

// What a thread takes: a range of elements of one tensor.
struct Chunk {
  const Job* job;
  int64_t begin, end;
};

void FillAll(const std::vector<Job>& jobs) {
  std::vector<Chunk> chunks;
  for (const Job& job : jobs) {
    if (job.view.data == nullptr) continue;
    for (int64_t begin = 0; begin < job.elements; begin += kChunkElements) {
      chunks.push_back({&job, begin, std::min(begin + kChunkElements, job.elements)});
    }
  }
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < chunks.size(); i = next++) {
      const Chunk& chunk = chunks[i];
      const int64_t bytes = chunk.job->recipe.element_bytes;
      uint8_t* data = const_cast<uint8_t*>(chunk.job->view.data) + chunk.begin * bytes;  // the memory is ours
      MakeElements(chunk.job->recipe, chunk.begin * bytes,
                   {data, static_cast<size_t>((chunk.end - chunk.begin) * bytes)});
    }
  };
  const size_t threads = std::min<size_t>(std::max(1u, std::thread::hardware_concurrency()), chunks.size());
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

absl::Status MakeDummyWeights(uint64_t seed, ModelParts& parts, bool as_recipes) {
  Plan plan(parts.config);
  const auto recipes = std::make_shared<Recipes>();
  int64_t bytes = 0;
  for (Job& job : plan.jobs()) {
    job.recipe = {.key = TensorKey(job.name, seed),
                  .table = recipes->tables.For(job).data(),
                  .element_bytes = TraitsOf(job.view.dtype).block_bytes};
    if (as_recipes && job.elements > kRecipeElements) {
      recipes->recipes.push_back(std::make_unique<TensorRecipe>(job.recipe));
      job.view.recipe = recipes->recipes.back().get();
    } else {
      job.offset = bytes;
      bytes += (job.view.bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
  }
  BATON_ASSIGN_OR_RETURN(const std::shared_ptr<uint8_t> memory, MapMemory(bytes));
  for (Job& job : plan.jobs()) {
    if (job.view.recipe == nullptr) job.view.data = memory.get() + job.offset;
  }
  FillAll(plan.jobs());
  parts.tensors.clear();
  for (Job& job : plan.jobs()) parts.tensors.emplace(std::move(job.name), std::move(job.view));
  parts.memory.push_back(memory);
  if (as_recipes) parts.memory.push_back(recipes);
  return absl::OkStatus();
}

}  // namespace baton
