#include "backend/cuda/tuning.h"

#include <algorithm>

#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr std::array<int64_t, 7> kPrefillRows = {128, 256, 512, 1024, 2048, 3072, 4096};

absl::Status TuneHead(GemmShape shape, const std::vector<const void*>& weights, const Activations& activations,
                      Gemm& gemm) {
  shape.fp32_output = true;
  for (const int32_t rows : kGraphRows) {
    if (rows < kFewestProductRows || rows > activations.logit_rows) continue;
    BATON_RETURN_IF_ERROR(gemm.Tune(shape, rows, weights, activations.head_input.data, activations.logits).status());
  }
  return absl::OkStatus();
}

// The activated slot is the widest input and gate-up the widest output, so every layer's product fits between them.
absl::Status TuneLayer(const GemmShape& shape, const std::vector<const void*>& weights, int64_t most, bool own_gemm,
                       const Activations& activations, Gemm& gemm) {
  std::vector<int64_t> sizes(kPrefillRows.begin(), kPrefillRows.end());
  for (const int32_t rows : kGraphRows) {
    if (rows >= kFewestProductRows && !(own_gemm && shape.fp8 && HasSmallGemm(shape.n, shape.k, rows)))
      sizes.push_back(rows);
  }
  sizes.push_back(most);
  for (const int64_t rows : sizes) {
    if (rows > most) continue;
    BATON_RETURN_IF_ERROR(gemm.Tune(shape, rows, weights, activations.activated.data, activations.gate_up).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TuneLayers(const LayersByShape& layers, const ModelShape& shape, const StepLimits& limits, bool own_gemm,
                        const Activations& activations, Gemm& gemm, cudaStream_t stream) {
  BATON_RETURN_IF_CUDA_ERROR(LaunchFillFp8(
      activations.activated.data, int64_t{shape.intermediate_size} * limits.max_batch_tokens, 1, 1.0f, stream));
  BATON_RETURN_IF_CUDA_ERROR(LaunchFillBf16(reinterpret_cast<__nv_bfloat16*>(activations.head_input.data),
                                            int64_t{activations.logit_rows} * shape.hidden_size, 2, 1.0f, stream));
  for (const auto& [layer, weights] : layers) {
    if (layer.n == shape.vocabulary) {
      BATON_RETURN_IF_ERROR(TuneHead(layer, weights, activations, gemm));
    } else if (layer.k <= shape.intermediate_size && layer.n <= 2 * shape.intermediate_size) {
      BATON_RETURN_IF_ERROR(TuneLayer(layer, weights, limits.max_batch_tokens, own_gemm, activations, gemm));
    }
  }
  return CudaStatus(cudaStreamSynchronize(stream), "tuning matrix products");
}

}  // namespace baton::cuda
