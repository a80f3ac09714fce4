// Folders: backend
// Measures the CUDA backend's kernels on Llama-70B's shapes, each with its share of the hardware's limit, on random
// data. Whole steps: `baton bench engine`.
//
//   baton_bench_kernels [json=FILE]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <numeric>
#include <random>
#include <string>

#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "device/cuda_device.h"

namespace {

using baton::CudaMemory;

template <typename T>
T Check(absl::StatusOr<T> result) {
  if (!result.ok()) {
    std::cerr << result.status() << "\n";
    std::exit(1);
  }
  return *std::move(result);
}
void Check(absl::Status status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}
void Check(cudaError_t error) { Check(baton::CudaStatus(error, "device call")); }

// What the card can do, as measured on such cards (docs: kernels): TB/s read, PFLOP/s of FP8 at its power limit.
struct Card {
  std::string name;
  double terabytes_per_second = 4.60;
  double fp8_petaflops = 1.31;
  double fp16_teraflops = 660;  // of attention's FP16 products
  int multiprocessors = 132;
};

struct Row {
  std::string name;
  double microseconds, floor;
};

class Report {
 public:
  explicit Report(Card card) : card_(std::move(card)) {}
  void Add(const std::string& name, double microseconds, double floor_microseconds) {
    rows_.push_back({name, microseconds, floor_microseconds});
    std::printf("%-52s %10.1f us  floor %10.1f  share %5.1f %%\n", name.c_str(), microseconds, floor_microseconds,
                100 * floor_microseconds / microseconds);
    std::fflush(stdout);
  }
  void Save(const std::string& path) const {
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (file == nullptr) return;
    std::fprintf(file, "{\"card\": \"%s\", \"rows\": [\n", card_.name.c_str());
    for (size_t i = 0; i < rows_.size(); ++i) {
      std::fprintf(file, "  {\"name\": \"%s\", \"us\": %.2f, \"floor_us\": %.2f}%s\n", rows_[i].name.c_str(),
                   rows_[i].microseconds, rows_[i].floor, i + 1 < rows_.size() ? "," : "");
    }
    std::fprintf(file, "]}\n");
    std::fclose(file);
  }
  const Card& card() const { return card_; }

 private:
  Card card_;
  std::vector<Row> rows_;
};

// ---- single kernels ----

class KernelBench {
 public:
  explicit KernelBench(Report& report) : report_(report), stream_(Check(baton::CudaStream::Create())) {
    gemm_ = Check(baton::cuda::Gemm::Create(stream_.get()));
  }

  void Run() {
    for (const int rows : {8, 32, 64, 512, 3000}) Rows(rows);
    for (const int rows : {8, 32, 64, 3000}) Products(rows);
    Head();
    DecodeAttention(std::vector<int>(8, 3075));
    DecodeAttention(std::vector<int>(32, 3075));
    DecodeAttention(std::vector<int>(64, 3075));
    PrefillAttention(3000);
    PrefillAttention(8192);
    Sampling(32);
  }

 private:
  static constexpr int kHidden = 8192, kInner = 28672, kHeads = 64, kKvHeads = 8, kDim = 128, kVocabulary = 128256;
  static constexpr int kQkv = (kHeads + 2 * kKvHeads) * kDim;
  static constexpr struct {
    const char* name;
    int64_t n, k;
  } kLayers[] = {
      {"QKV", kQkv, kHidden}, {"O", kHidden, kHidden}, {"gate-up", 2 * kInner, kHidden}, {"down", kHidden, kInner}};

  template <typename T>
  T* Allocate(int64_t count) {
    memory_.push_back(
        Check(CudaMemory::Allocate(CudaMemory::Kind::kDevice, count * static_cast<int64_t>(sizeof(T)), "measuring")));
    return memory_.back().as<T>();
  }
  __nv_bfloat16* RandomBf16(int64_t count, float deviation) {
    auto* data = Allocate<__nv_bfloat16>(count);
    Check(baton::cuda::LaunchFillBf16(data, count, ++seed_, deviation, stream_.get()));
    return data;
  }
  uint8_t* RandomFp8(int64_t count) {
    auto* data = Allocate<uint8_t>(count);
    Check(baton::cuda::LaunchFillFp8(data, count, ++seed_, 1.0f, stream_.get()));
    return data;
  }
  float* RandomFloats(int64_t count, float low, float high) {
    auto* data = Allocate<float>(count);
    Check(baton::cuda::LaunchFillFloat(data, count, ++seed_, low, high, stream_.get()));
    return data;
  }
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    T* data = Allocate<T>(static_cast<int64_t>(values.size()));
    Check(cudaMemcpyAsync(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream_.get()));
    Check(stream_.Synchronize());
    return data;
  }
  void Free() {
    Check(stream_.Synchronize());
    memory_.clear();
  }

  // Microseconds of one of `count` launches in a graph, the median of five.
  double Time(int count, const std::function<void(int)>& launch) {
    launch(0);
    Check(stream_.Synchronize());
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    Check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < count; ++i) launch(i);
    Check(cudaStreamEndCapture(stream_.get(), &graph));
    Check(cudaGraphInstantiate(&executable, graph, 0));
    baton::CudaEvent begin = Check(baton::CudaEvent::Create(true));
    baton::CudaEvent end = Check(baton::CudaEvent::Create(true));
    std::vector<double> times;
    for (int i = 0; i < 6; ++i) {
      Check(cudaEventRecord(begin.get(), stream_.get()));
      Check(cudaGraphLaunch(executable, stream_.get()));
      Check(cudaEventRecord(end.get(), stream_.get()));
      Check(cudaEventSynchronize(end.get()));
      float milliseconds;
      Check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
      if (i > 0) times.push_back(milliseconds * 1e3 / count);
    }
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  double BytesFloor(double bytes) const { return bytes / report_.card().terabytes_per_second / 1e6; }
  static std::string Name(const char* what, int rows) {
    return std::string(what) + ", " + std::to_string(rows) + " rows";
  }

  void Rows(int rows) {
    auto* residual = RandomBf16(int64_t{rows} * kHidden, 1.0f);
    auto* delta = RandomBf16(int64_t{rows} * kHidden, 100.0f);
    auto* gate_up = RandomBf16(int64_t{rows} * 2 * kInner, 100.0f);
    auto* qkv = RandomBf16(int64_t{rows} * kQkv, 100.0f);
    auto* token = RandomFloats(rows, 0.005f, 0.015f);
    auto* channel = reinterpret_cast<const __half*>(RandomBf16(2 * kInner, 1.0f));
    auto* weight = RandomFloats(kHidden, 0.5f, 1.5f);
    auto* codes = Allocate<uint8_t>(int64_t{rows} * kInner);
    auto* scales = Allocate<float>(rows);
    auto* rotary = Allocate<float2>(4096 * kDim / 2);
    auto* frequencies = RandomFloats(kDim / 2, 0.0f, 1.0f);
    Check(baton::cuda::LaunchRotaryTable(rotary, frequencies, 4096, kDim / 2, stream_.get()));
    const int blocks = rows > 64 ? (rows + 127) / 128 : rows;
    auto* cache = RandomFp8(int64_t{blocks} * kKvHeads * 2 * 128 * kDim);
    std::vector<baton::cuda::RowInfo> info;
    for (int i = 0; i < rows; ++i) info.push_back({0, rows > 64 ? i : 3074, rows > 64 ? i / 128 : i});
    auto* device_info = Upload(info);
    const baton::cuda::RowOutput out{codes, scales, nullptr};
    const int count = 40;
    const baton::cuda::RmsNormArgs norm{
        residual, delta, {token, channel, 1.0f, nullptr}, weight, nullptr, out, rows, kHidden, 1e-5f, true};
    report_.Add(Name("residual + norm + quantize", rows),
                Time(count, [&](int) { Check(baton::cuda::LaunchRmsNorm(norm, stream_.get())); }),
                BytesFloor(7.0 * rows * kHidden));
    const baton::cuda::SwiGluArgs swiglu{gate_up, {token, channel, 1.0f, nullptr}, out, rows, kInner};
    report_.Add(Name("SwiGLU + quantize", rows),
                Time(count, [&](int) { Check(baton::cuda::LaunchSwiGlu(swiglu, stream_.get())); }),
                BytesFloor(5.0 * rows * kInner));
    const baton::cuda::QuantizeArgs quantize{delta, out, rows, kHidden};
    report_.Add(Name("attention output quantize", rows),
                Time(count, [&](int) { Check(baton::cuda::LaunchQuantize(quantize, stream_.get())); }),
                BytesFloor(3.0 * rows * kHidden));
    const baton::cuda::KvCacheView view{cache, kKvHeads, 1, kDim, true};
    report_.Add(
        Name("scale + RoPE + KV append", rows),
        Time(count,
             [&](int) {
               Check(baton::cuda::LaunchRopeAppend(
                   {qkv, {token, channel, 1.0f, nullptr}, rotary, device_info, view, rows, kHeads, 0, 0.1f, false},
                   stream_.get()));
             }),
        BytesFloor(rows * (2.0 * kQkv + 2.0 * kHeads * kDim + 2.0 * kKvHeads * kDim)));
    Free();
  }

  void Products(int rows) {
    constexpr int64_t kPool = int64_t{3} << 30;
    auto* weights = RandomFp8(kPool);
    auto* input = RandomFp8(int64_t{rows} * kInner);
    auto* output = Allocate<__nv_bfloat16>(int64_t{rows} * 2 * kInner);
    double total = 0;
    double floors = 0;
    for (const auto& layer : kLayers) {
      std::vector<const void*> copies;
      for (int64_t at = 0; at + layer.n * layer.k <= kPool && copies.size() < 16; at += layer.n * layer.k) {
        copies.push_back(weights + at);
      }
      const baton::cuda::GemmShape shape{.n = layer.n, .k = layer.k, .fp8 = true};
      Check(gemm_->Tune(shape, rows, copies, input, output).status());
      const double time = Time(
          rows > 64 ? 8 : 32, [&](int i) { Check(gemm_->Run(shape, copies[i % copies.size()], input, rows, output)); });
      const double bytes = static_cast<double>(layer.n * layer.k);
      const double floor = std::max(BytesFloor(bytes), 2.0 * rows * bytes / report_.card().fp8_petaflops / 1e9);
      report_.Add(Name((std::string(layer.name) + " product").c_str(), rows), time, floor);
      double best = time;
      if (baton::cuda::HasSmallGemm(layer.n, layer.k, rows)) {
        best = Time(32, [&](int i) {
          Check(baton::cuda::LaunchSmallGemm({static_cast<const uint8_t*>(copies[i % copies.size()]), input, output,
                                              static_cast<int32_t>(layer.n), static_cast<int32_t>(layer.k), rows},
                                             stream_.get()));
        });
        report_.Add(Name((std::string(layer.name) + " product, own").c_str(), rows), best, floor);
      }
      total += best;
      floors += floor;
    }
    report_.Add(Name("four products of a layer", rows), total, floors);
    Free();
  }

  void Head() {
    auto* weight = RandomBf16(int64_t{kVocabulary} * kHidden, 0.01f);
    auto* input = RandomBf16(int64_t{64} * kHidden, 1.0f);
    auto* output = Allocate<float>(int64_t{64} * kVocabulary);
    const baton::cuda::GemmShape shape{.n = kVocabulary, .k = kHidden, .fp8 = false, .fp32_output = true};
    for (const int rows : {1, 32, 64}) {
      Check(gemm_->Tune(shape, rows, {weight}, input, output).status());
      report_.Add(Name("head (BF16)", rows),
                  Time(8, [&](int) { Check(gemm_->Run(shape, weight, input, rows, output)); }),
                  BytesFloor(2.0 * kVocabulary * kHidden));
    }
    Free();
  }

  void DecodeAttention(const std::vector<int32_t>& lengths) {
    constexpr int kLayers = 16;
    std::vector<int32_t> offsets, prefix = {0};
    int blocks = 0;
    double tokens = 0;
    for (const int32_t length : lengths) {
      offsets.push_back(blocks);
      blocks += (length + 127) / 128;
      tokens += length;
      prefix.push_back(prefix.back() + baton::cuda::DecodeUnits(length));
    }
    std::vector<int32_t> table(blocks);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(1));
    const int sequences = static_cast<int>(lengths.size());
    auto* pool = RandomFp8(int64_t{blocks} * kKvHeads * kLayers * 2 * 128 * kDim);
    auto* query = reinterpret_cast<__half*>(RandomBf16(int64_t{sequences} * kQkv, 0.05f));
    auto* output = Allocate<__nv_bfloat16>(int64_t{sequences} * kHeads * kDim);
    auto* partial = Allocate<uint8_t>(baton::cuda::DecodeAttentionPartialBytes(report_.card().multiprocessors));
    auto* counters = Upload(std::vector<uint32_t>(sequences * kKvHeads, 0));
    auto* device_table = Upload(table);
    auto* device_offsets = Upload(offsets);
    auto* device_lengths = Upload(lengths);
    auto* device_prefix = Upload(prefix);
    report_.Add("decode attention, " + std::to_string(sequences) + " x " + std::to_string(lengths[0]),
                Time(64,
                     [&](int i) {
                       Check(baton::cuda::LaunchDecodeAttention({query,
                                                                 {pool, kKvHeads, kLayers, kDim, true},
                                                                 device_table,
                                                                 device_offsets,
                                                                 device_lengths,
                                                                 device_prefix,
                                                                 output,
                                                                 reinterpret_cast<float*>(partial),
                                                                 counters,
                                                                 sequences,
                                                                 kHeads,
                                                                 i % kLayers,
                                                                 kQkv,
                                                                 report_.card().multiprocessors},
                                                                stream_.get()));
                     }),
                BytesFloor(tokens * kKvHeads * 2 * kDim));
    Free();
  }

  void PrefillAttention(int tokens) {
    const int tiles = (tokens + 127) / 128;
    std::vector<baton::cuda::GatherTile> gather;
    std::vector<baton::cuda::QueryTile> queries;
    for (int i = 0; i < tiles; ++i) gather.push_back({tiles - 1 - i, i, std::min(128, tokens - i * 128)});
    for (int i = tiles - 1; i >= 0; --i) queries.push_back({i * 128, std::min(128, tokens - i * 128), i * 128, 0});
    auto* pool = RandomFp8(int64_t{tiles} * kKvHeads * 2 * 128 * kDim);
    auto* scratch = Allocate<__half>(int64_t{tiles} * kKvHeads * 2 * 128 * kDim);
    auto* query = reinterpret_cast<__half*>(RandomBf16(int64_t{tokens} * kQkv, 0.05f));
    auto* output = Allocate<__nv_bfloat16>(int64_t{tokens} * kHeads * kDim);
    auto* device_gather = Upload(gather);
    auto* device_queries = Upload(queries);
    const baton::cuda::KvCacheView view{pool, kKvHeads, 1, kDim, true};
    const std::string suffix = ", " + std::to_string(tokens) + " tokens";
    report_.Add(
        "gather K and V" + suffix,
        Time(16,
             [&](int) { Check(baton::cuda::LaunchGatherKv(view, device_gather, tiles, 0, scratch, stream_.get())); }),
        BytesFloor(6.0 * tokens * kKvHeads * kDim));
    report_.Add("prefill attention" + suffix,
                Time(8,
                     [&](int) {
                       Check(baton::cuda::LaunchPrefillAttention({query, scratch, device_queries, output, tiles, kHeads,
                                                                  kKvHeads, kDim, kQkv, report_.card().multiprocessors},
                                                                 stream_.get()));
                     }),
                2.0 * tokens * tokens * kHeads * kDim / report_.card().fp16_teraflops / 1e6);
    Free();
  }

  void Sampling(int rows) {
    auto* logits = RandomFloats(int64_t{rows} * kVocabulary, -8.0f, 8.0f);
    auto* results = Allocate<baton::cuda::SampleResult>(rows);
    for (const int kind : {0, 1, 2}) {
      std::vector<baton::cuda::SampleRow> samples(rows);
      for (int i = 0; i < rows; ++i) {
        samples[i].logits_row = i;
        samples[i].target = -1;
        samples[i].inverse_temperature = kind == 0 ? 0.0f : 1.2f;
        samples[i].top_p = kind == 2 ? 0.9f : 1.0f;
        samples[i].top_k = kind == 2 ? 50 : 0;
        samples[i].top_logprobs = -1;
      }
      auto* device_samples = Upload(samples);
      const char* names[] = {"sampling, greedy", "sampling, temperature", "sampling, temperature, top-k, top-p"};
      report_.Add(Name(names[kind], rows),
                  Time(16,
                       [&](int) {
                         Check(baton::cuda::LaunchSample({logits, device_samples, nullptr, results, rows, kVocabulary},
                                                         stream_.get()));
                       }),
                  BytesFloor(4.0 * rows * kVocabulary));
    }
    Free();
  }

  Report& report_;
  baton::CudaStream stream_;
  std::unique_ptr<baton::cuda::Gemm> gemm_;
  std::vector<CudaMemory> memory_;
  uint64_t seed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("json=")) json = argument.substr(5);
  }
  const baton::CudaDeviceInfo device = Check(baton::SelectCudaDevice(0));
  Card card{.name = device.name, .multiprocessors = device.multiprocessors};
  if (device.name.find("H100") != std::string::npos) {
    card.terabytes_per_second = 3.15;
    card.fp8_petaflops = 1.34;
  }
  std::printf("%s, %lld MiB free\n", device.name.c_str(), static_cast<long long>(device.free_bytes >> 20));
  Report report(card);
  KernelBench(report).Run();
  if (!json.empty()) report.Save(json);
  return 0;
}
