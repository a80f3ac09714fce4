// The operations of a Llama-like forward pass on one device. A new device is one implementation of this.
//
// Activations live inside the backend, in named slots of [rows][width], in whatever type it computes with: a backend
// may quantize in Norm, Attention and SwiGlu what the next Linear reads. The engine's forward pass (engine/llama.cc) is
// the only caller, and reads like the model's definition.
//
// Threading: all calls from one thread; a backend may use threads or streams of its own inside, and on a device calls
//   only enqueue until CollectStep.
// Ownership: weights and caches that it makes must not outlive it.
// Errors: Unimplemented for a type it does not have, with the type's name; device errors are Internal and final.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/batch.h"
#include "core/engine.h"
#include "core/kv_layout.h"
#include "core/tensor.h"

namespace baton {

struct BackendInfo {
  std::string name;                // "cpu", "cuda"
  std::string device;              // for people
  std::string instruction_set;     // enters the fingerprint: "avx2", "plain", "sm_90a", "sm_90a,deterministic"
  int32_t default_block_size = 0;  // tokens
  DType default_kv_dtype = DType::kF16;
  int32_t steps_in_flight = 1;      // as EngineInfo's
  std::vector<DType> weight_types;  // that PrepareLinear takes; the engine makes BF16 of others
};

// The numbers of a decoder-only model that its kernels need.
struct ModelShape {
  int32_t num_layers = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocabulary = 0;
  int32_t max_position = 0;
  float rms_norm_epsilon = 1e-5f;
  bool rope_interleaved = false;                // pairs (2i, 2i+1) instead of (i, i + head_dim / 2): GGUF's Llama rows
  std::vector<float> rope_inverse_frequencies;  // [head_dim / 2], any scaling already applied
  // [num_layers], or empty: 1. Used where K and V are stored in FP8: stored × scale = value.
  std::vector<float> k_scales, v_scales;
  std::vector<TokenId> end_tokens;  // masked by min_tokens
};

struct StepLimits {
  int32_t max_batch_tokens = 0;
  int32_t max_sequences = 0;
};

enum class Slot : uint8_t {
  kResidual,   // [tokens][hidden], the residual stream
  kNormed,     // [tokens][hidden], input of QKV, gate-up and the head
  kQkv,        // [tokens][(heads + 2 kv_heads) × head_dim]
  kAttention,  // [tokens][heads × head_dim]
  kDelta,      // [tokens][hidden], what the next Norm adds to the residual stream
  kGateUp,     // [tokens][2 × intermediate]: gate, then up
  kActivated,  // [tokens][intermediate]
  kLogits,     // [sampled rows][vocabulary], FP32
};

class LinearWeight {  // opaque: prepared for the device (packed, quantized, uploaded)
 public:
  virtual ~LinearWeight() = default;
};
class VectorWeight {
 public:
  virtual ~VectorWeight() = default;
};

// A [out, in] weight with the scales that its type needs.
struct LinearSource {
  TensorView weight;
  TensorView scale;       // FP8: per tensor [1] or per output row [out]; empty otherwise
  TensorView bias;        // [out]; empty when there is none
  float input_scale = 0;  // FP8 static activations; 0: dynamic, per token
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const BackendInfo& info() const = 0;

  // ---- set-up ----
  // Several sources become one weight, stacked along `out` (Q, K and V; gate and up).
  virtual absl::StatusOr<std::unique_ptr<LinearWeight>> PrepareLinear(std::span<const LinearSource> sources) = 0;
  virtual absl::StatusOr<std::unique_ptr<VectorWeight>> PrepareVector(const TensorView& source) = 0;
  // Allocates activations, rotary tables and the KV cache of `num_blocks`. Once, after the weights.
  virtual absl::Status Start(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks,
                             const StepLimits& limits) = 0;
  virtual KvMemory kv_memory() = 0;

  // ---- one step ----
  // Takes the batch's tokens, positions and block tables; every call until EndStep is about them.
  virtual absl::Status BeginStep(const Batch& batch) = 0;
  virtual absl::Status Embed(const LinearWeight& table) = 0;                  // tokens → kResidual
  virtual absl::Status Norm(const VectorWeight& weight, bool add_delta) = 0;  // kResidual (+= kDelta) → kNormed
  virtual absl::Status Linear(const LinearWeight& weight, Slot input, Slot output) = 0;
  virtual absl::Status RotateAndAppend(int32_t layer) = 0;  // kQkv: RoPE; K and V → the cache
  virtual absl::Status Attention(int32_t layer) = 0;        // Q of kQkv, the cache → kAttention
  virtual absl::Status SwiGlu() = 0;                        // kGateUp → kActivated
  virtual absl::Status AllReduce(Slot slot) = 0;            // over tensor-parallel ranks
  // Norm and head over kResidual + kDelta, of the rows that are asked for only. Rows to sample → kLogits; rows whose
  // prompt log-probability is asked for are scored at once, a few at a time, since there may be many.
  virtual absl::Status Logits(const VectorWeight& norm, const LinearWeight& head) = 0;
  // An opaque event that passes when everything enqueued so far is done; null on synchronous backends.
  virtual absl::StatusOr<void*> RecordEvent() = 0;
  // Samples where asked (see sampler.h for the rules). The batch is not needed any more.
  virtual absl::Status EndStep() = 0;
  // Waits for the oldest step that has ended so and was not collected: where steps_in_flight is 2, the next one may
  // have begun. Its duration_us is the caller's to set.
  virtual absl::StatusOr<StepOutput> CollectStep() = 0;

  virtual absl::Status CopyBlock(BlockId from, BlockId to) = 0;
};

// Code paths of the CPU backend that this machine can run, the best first: of "avx512bf16", "avx512", "avx2", "plain".
std::vector<std::string> CpuInstructionSets();

// The CPU. `threads`: compute threads, the caller included; `instruction_set`: "" or "auto" (best there is), or a name.
// `threads_now`: how many of them the next operation may use, asked on the thread of the step; empty: all.
inline constexpr int32_t kMaxCpuThreads = 64;
struct CpuOptions {
  int32_t threads = 1;
  std::string instruction_set;
  std::function<int()> threads_now;
};
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuOptions& options);

// Sees the numbers of a step, for comparisons with a reference. Steps that are observed run without graphs, and stop
// after each half of a layer.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  // The residual stream, [rows][hidden], with what layer half / 2 has added: attention if half is even, else the MLP.
  virtual void OnHalfLayer(int32_t half, std::span<const float> hidden) = 0;
  virtual void OnLogits(std::span<const float> logits) = 0;  // [rows to sample][vocabulary]
};

// One Hopper GPU (backend/cuda/). Defined only where the build found nvcc: see BATON_HAVE_CUDA.
inline constexpr DType kCudaWeightTypes[] = {DType::kF8E4M3, DType::kBF16, DType::kF16, DType::kF32};
struct CudaOptions {
  int32_t device = 0;    // index among the visible ones
  bool graphs = true;    // decode steps as CUDA graphs
  bool own_gemm = true;  // FP8 products of up to 32 rows by backend/cuda/small_gemm.cu instead of cuBLASLt
  // A row's results do not depend on the batch: products and attention by backend/cuda/invariant_*.cu, at a price in
  // time. Without it they depend on it in the last bits.
  bool deterministic = false;
  StepObserver* observer = nullptr;
};
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const CudaOptions& options);

}  // namespace baton
