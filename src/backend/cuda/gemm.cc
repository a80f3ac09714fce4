#include "backend/cuda/gemm.h"

#include <algorithm>

namespace baton::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = 32 << 20;
constexpr int kHeuristics = 16;
constexpr int kTimings = 3;
constexpr size_t kFinalists = 3;
constexpr float kFinalMicroseconds = 2500;  // of one timing among the finalists: short ones rank by noise, and cold
// Up to here an algorithm tuned for more rows serves fewer: reading weights is all there is.
constexpr int64_t kBucketRows = 64;

absl::Status LtStatus(cublasStatus_t status, std::string_view call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return Internal("cuBLASLt's ", call, " failed with status ", static_cast<int>(status));
}

#define BATON_RETURN_IF_LT_ERROR(call) BATON_RETURN_IF_ERROR(LtStatus((call), #call))

}  // namespace

absl::StatusOr<std::unique_ptr<Gemm>> Gemm::Create(cudaStream_t stream) {
  std::unique_ptr<Gemm> gemm(new Gemm);
  gemm->stream_ = stream;
  BATON_ASSIGN_OR_RETURN(gemm->library_, LoadCublasLt());
  BATON_RETURN_IF_LT_ERROR(gemm->library_->create(&gemm->handle_));
  BATON_ASSIGN_OR_RETURN(gemm->workspace_,
                         CudaMemory::Allocate(CudaMemory::Kind::kDevice, kWorkspaceBytes, "cuBLASLt's workspace"));
  BATON_ASSIGN_OR_RETURN(gemm->begin_, CudaEvent::Create(true));
  BATON_ASSIGN_OR_RETURN(gemm->end_, CudaEvent::Create(true));
  return gemm;
}

Gemm::~Gemm() {
  for (auto& [shape, descriptors] : descriptors_) {
    if (descriptors.operation != nullptr) library_->desc_destroy(descriptors.operation);
    for (cublasLtMatrixLayout_t layout : {descriptors.weight, descriptors.input, descriptors.output}) {
      if (layout != nullptr) library_->layout_destroy(layout);
    }
  }
  if (handle_ != nullptr) library_->destroy(handle_);
}

// In the library's column-major words: D[n × rows] = op(weight[k × n])ᵀ × input[k × rows].
absl::StatusOr<Gemm::Descriptors*> Gemm::DescriptorsFor(const GemmShape& shape) {
  auto [found, added] = descriptors_.try_emplace(shape);
  Descriptors& made = found->second;
  if (!added) return &made;
  const cudaDataType_t in = shape.fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  const cudaDataType_t out = shape.fp32_output ? CUDA_R_32F : CUDA_R_16BF;
  const cublasOperation_t transpose = CUBLAS_OP_T;
  const int8_t fast = 1;
  BATON_RETURN_IF_LT_ERROR(library_->desc_create(&made.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  BATON_RETURN_IF_LT_ERROR(
      library_->desc_set(made.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)));
  if (shape.fp8) {
    BATON_RETURN_IF_LT_ERROR(library_->desc_set(made.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)));
  }
  BATON_RETURN_IF_LT_ERROR(library_->layout_create(&made.weight, in, shape.k, shape.n, shape.k));
  BATON_RETURN_IF_LT_ERROR(library_->layout_create(&made.input, in, shape.k, 1, shape.k));
  BATON_RETURN_IF_LT_ERROR(library_->layout_create(&made.output, out, shape.n, 1, shape.n));
  return &made;
}

absl::Status Gemm::SetRows(Descriptors& descriptors, int64_t rows) {
  const uint64_t columns = static_cast<uint64_t>(rows);
  BATON_RETURN_IF_LT_ERROR(
      library_->layout_set(descriptors.input, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns)));
  BATON_RETURN_IF_LT_ERROR(
      library_->layout_set(descriptors.output, CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns)));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Gemm::Heuristics(Descriptors& descriptors, int most) {
  cublasLtMatmulPreference_t preference = nullptr;
  BATON_RETURN_IF_LT_ERROR(library_->preference_create(&preference));
  const uint64_t workspace = kWorkspaceBytes;
  std::vector<cublasLtMatmulHeuristicResult_t> results(most);
  int count = 0;
  cublasStatus_t status =
      library_->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace));
  if (status == CUBLAS_STATUS_SUCCESS) {
    status =
        library_->algo_get_heuristic(handle_, descriptors.operation, descriptors.weight, descriptors.input,
                                     descriptors.output, descriptors.output, preference, most, results.data(), &count);
  }
  library_->preference_destroy(preference);
  BATON_RETURN_IF_ERROR(LtStatus(status, "algorithm search"));
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
  }
  if (algorithms.empty()) return Internal("cuBLASLt has no algorithm for a matrix product of this shape");
  return algorithms;
}

absl::Status Gemm::Enqueue(const Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm, const void* weight,
                           const void* input, void* output) {
  const float one = 1.0f;
  const float zero = 0.0f;
  return LtStatus(library_->matmul(handle_, descriptors.operation, &one, weight, descriptors.weight, input,
                                   descriptors.input, &zero, output, descriptors.output, output, descriptors.output,
                                   &algorithm, workspace_.data(), kWorkspaceBytes, stream_),
                  "matrix product");
}

// Microseconds of one product, the median of a few runs of a graph of `repeats`.
absl::StatusOr<float> Gemm::Time(const Descriptors& descriptors, const cublasLtMatmulAlgo_t& algorithm,
                                 const std::vector<const void*>& weights, const void* input, void* output,
                                 int repeats) {
  BATON_RETURN_IF_ERROR(Enqueue(descriptors, algorithm, weights[0], input, output));  // loads the kernel
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  absl::Status status;
  for (int i = 0; i < repeats && status.ok(); ++i) {
    status = Enqueue(descriptors, algorithm, weights[i % weights.size()], input, output);
  }
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamEndCapture(stream_, &graph));
  BATON_RETURN_IF_ERROR(status);
  BATON_RETURN_IF_CUDA_ERROR(cudaGraphInstantiate(&executable, graph, 0));
  BATON_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(executable, stream_));
  std::vector<float> times;
  for (int i = 0; i < kTimings; ++i) {
    BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(begin_.get(), stream_));
    BATON_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(executable, stream_));
    BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(end_.get(), stream_));
    BATON_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end_.get()));
    float milliseconds = 0;
    BATON_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()));
    times.push_back(milliseconds * 1000 / static_cast<float>(repeats));
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

absl::StatusOr<float> Gemm::Tune(const GemmShape& shape, int64_t rows, const std::vector<const void*>& weights,
                                 const void* input, void* output) {
  BATON_ASSIGN_OR_RETURN(Descriptors * descriptors, DescriptorsFor(shape));
  if (descriptors->tuned.contains(rows)) return 0.0f;
  BATON_RETURN_IF_ERROR(SetRows(*descriptors, rows));
  BATON_ASSIGN_OR_RETURN(const std::vector<cublasLtMatmulAlgo_t> algorithms, Heuristics(*descriptors, kHeuristics));
  struct Candidate {
    float time;
    cublasLtMatmulAlgo_t algorithm;
  };
  std::vector<Candidate> candidates;
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
    auto time = Time(*descriptors, algorithm, weights, input, output, rows >= 512 ? 2 : 8);
    if (time.ok()) {
      candidates.push_back({*time, algorithm});
    } else {
      cudaGetLastError();  // an algorithm that does not run is no candidate
    }
  }
  if (candidates.empty()) {
    return Internal("no cuBLASLt algorithm ran for a product of ", rows, " × ", shape.n, " × ", shape.k);
  }
  // The library's own first choice is a finalist: it is mostly within 2 % of the best.
  std::sort(candidates.begin() + 1, candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.time < b.time; });
  if (rows > kBucketRows) {
    candidates.resize(std::min(candidates.size(), 1 + kFinalists));
    for (Candidate& candidate : candidates) {
      const int repeats = std::clamp(static_cast<int>(kFinalMicroseconds / candidate.time), 2, 32);
      BATON_ASSIGN_OR_RETURN(candidate.time, Time(*descriptors, candidate.algorithm, weights, input, output, repeats));
    }
  }
  const auto best = std::min_element(candidates.begin(), candidates.end(),
                                     [](const Candidate& a, const Candidate& b) { return a.time < b.time; });
  descriptors->tuned[rows] = best->algorithm;
  descriptors->checked.clear();
  return best->time;
}

absl::StatusOr<const cublasLtMatmulAlgo_t*> Gemm::AlgorithmFor(Descriptors& descriptors, int64_t rows) {
  const auto known = descriptors.checked.find(rows);
  if (known != descriptors.checked.end()) return &known->second;
  auto tuned = descriptors.tuned.lower_bound(rows);
  if (tuned != descriptors.tuned.end() && tuned->first != rows && tuned->first > kBucketRows) {
    tuned = descriptors.tuned.end();  // tiles that fit more rows can take half as long again
  }
  cublasLtMatmulHeuristicResult_t result{};
  if (tuned != descriptors.tuned.end() &&
      library_->algo_check(handle_, descriptors.operation, descriptors.weight, descriptors.input, descriptors.output,
                           descriptors.output, &tuned->second, &result) == CUBLAS_STATUS_SUCCESS &&
      result.workspaceSize <= static_cast<size_t>(kWorkspaceBytes)) {
    return &(descriptors.checked[rows] = tuned->second);
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<cublasLtMatmulAlgo_t> algorithms, Heuristics(descriptors, 1));
  return &(descriptors.checked[rows] = algorithms[0]);
}

absl::Status Gemm::Run(const GemmShape& shape, const void* weight, const void* input, int64_t rows, void* output) {
  BATON_ASSIGN_OR_RETURN(Descriptors * descriptors, DescriptorsFor(shape));
  BATON_RETURN_IF_ERROR(SetRows(*descriptors, rows));
  BATON_ASSIGN_OR_RETURN(const cublasLtMatmulAlgo_t* algorithm, AlgorithmFor(*descriptors, rows));
  return Enqueue(*descriptors, *algorithm, weight, input, output);
}

}  // namespace baton::cuda
