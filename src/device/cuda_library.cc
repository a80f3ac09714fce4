#include "device/cuda_library.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <string_view>

namespace baton {
namespace {

void AppendMatches(const std::string& pattern, std::vector<std::string>& folders) {
  glob_t found{};
  if (glob(pattern.c_str(), GLOB_ONLYDIR, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) folders.emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

std::vector<std::string> SplitPath(const char* list) {
  std::vector<std::string> parts;
  std::string_view rest = list == nullptr ? "" : list;
  while (!rest.empty()) {
    const size_t end = rest.find(':');
    if (end != 0) parts.emplace_back(rest.substr(0, end));
    rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
  }
  return parts;
}

// Where the loader found what `handle` is, by one of its functions; else the name that it was asked for.
std::string PathOf(void* handle, const char* function, const std::string& name) {
  Dl_info info{};
  void* address = dlsym(handle, function);
  if (address == nullptr || dladdr(address, &info) == 0 || info.dli_fname == nullptr) return name;
  return info.dli_fname;
}

absl::Status LoadInto(CublasLtLibrary& library) {
  BATON_ASSIGN_OR_RETURN(void* handle,
                         OpenCudaLibrary("libcublasLt.so.13", "install CUDA 13 or pip's nvidia-cublas", library.path));
  const char* missing = nullptr;
  auto load = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) missing = name;
  };
  load(library.create, "cublasLtCreate");
  load(library.destroy, "cublasLtDestroy");
  load(library.get_version, "cublasLtGetVersion");
  load(library.matmul, "cublasLtMatmul");
  load(library.algo_check, "cublasLtMatmulAlgoCheck");
  load(library.algo_get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  load(library.desc_create, "cublasLtMatmulDescCreate");
  load(library.desc_destroy, "cublasLtMatmulDescDestroy");
  load(library.desc_set, "cublasLtMatmulDescSetAttribute");
  load(library.layout_create, "cublasLtMatrixLayoutCreate");
  load(library.layout_destroy, "cublasLtMatrixLayoutDestroy");
  load(library.layout_set, "cublasLtMatrixLayoutSetAttribute");
  load(library.preference_create, "cublasLtMatmulPreferenceCreate");
  load(library.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  load(library.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  if (missing != nullptr)
    return FailedPrecondition(library.path, " has no function ", missing, "; CUDA 13's is needed");
  library.path = PathOf(handle, "cublasLtCreate", library.path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<void*> OpenCudaLibrary(const std::string& name, std::string_view advice, std::string& path) {
  std::string places;
  for (const std::string& folder : CudaLibraryFolders()) {
    path = Cat(folder, "/", name);
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    places += Cat(folder, ", ");
  }
  path = name;
  if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
  return FailedPrecondition(name, " was not found in ", places, "or the loader's path; ", advice,
                            ", or name its folder in BATON_CUDA_LIBRARIES");
}

std::string CublasLtVersion(const CublasLtLibrary& library) {
  const size_t version = library.get_version();
  return Cat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<NcclVersion> FindNccl() {
  NcclVersion found;
  BATON_ASSIGN_OR_RETURN(void* handle, OpenCudaLibrary("libnccl.so.2", "install pip's nvidia-nccl-cu13", found.path));
  const auto get_version = reinterpret_cast<int (*)(int*)>(dlsym(handle, "ncclGetVersion"));
  int version = 0;
  if (get_version == nullptr || get_version(&version) != 0) {
    return FailedPrecondition(found.path, " does not tell its version: it is no NCCL 2");
  }
  found.path = PathOf(handle, "ncclGetVersion", found.path);
  found.version = Cat(version / 10000, ".", version / 100 % 100, ".", version % 100);
  return found;
}

std::vector<std::string> CudaLibraryFolders() {
  std::vector<std::string> folders = SplitPath(std::getenv("BATON_CUDA_LIBRARIES"));
  std::vector<std::string> prefixes;
  if (const char* environment = std::getenv("VIRTUAL_ENV")) prefixes.emplace_back(environment);
  for (const std::string& folder : SplitPath(std::getenv("PATH"))) prefixes.push_back(Cat(folder, "/.."));
  for (const std::string& prefix : prefixes) {
    AppendMatches(Cat(prefix, "/lib/python3*/*-packages/nvidia/*/lib"), folders);
  }
  AppendMatches("/usr/local/cuda/lib64", folders);
  return folders;
}

absl::StatusOr<const CublasLtLibrary*> LoadCublasLt() {
  static const auto* loaded = [] {
    auto* library = new CublasLtLibrary;  // for the process's life
    return new std::pair<CublasLtLibrary*, absl::Status>(library, LoadInto(*library));
  }();
  if (!loaded->second.ok()) return loaded->second;
  return loaded->first;
}

}  // namespace baton
