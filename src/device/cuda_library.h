// The CUDA libraries that exist only as shared objects, opened when first needed: the same binary starts on machines
// without them, and says where it looked.
//
// Order of places: $BATON_CUDA_LIBRARIES (folders, ':' between them), pip's nvidia/*/lib beside each python3 on $PATH
// and in $VIRTUAL_ENV, /usr/local/cuda/lib64, then the loader's own path.
//
// Threading: any thread. Ownership: a loaded library stays for the process's life. Errors: FailedPrecondition naming
// the library, the places and what to install.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace baton {

struct CublasLtLibrary {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) get_version = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) algo_check = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) algo_get_heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  std::string path;  // where it was found
};

absl::StatusOr<const CublasLtLibrary*> LoadCublasLt();
std::string CublasLtVersion(const CublasLtLibrary& library);

// Nothing is computed with NCCL yet: workers are single GPUs, and hand-offs are one-sided copies. What `baton devices`
// reports is whether a build with tensor parallelism would find it.
struct NcclVersion {
  std::string version, path;
};
absl::StatusOr<NcclVersion> FindNccl();

// Opens a library from the first place that has it, which goes into `path`. `advice`: how to get one.
absl::StatusOr<void*> OpenCudaLibrary(const std::string& name, std::string_view advice, std::string& path);

// The folders that are searched, in order; for the doctor.
std::vector<std::string> CudaLibraryFolders();

}  // namespace baton
