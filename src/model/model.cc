#include "model/model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "model/dummy.h"
#include "model/fingerprint.h"
#include "model/gguf_model.h"
#include "model/hf_model.h"
#include "model/mapped_file.h"
#include "model/shape_preset.h"

namespace baton {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExpected =
    "expected a .gguf file, or a directory with config.json and *.safetensors as on Hugging Face";

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

absl::StatusOr<ModelParts> ReadGgufFile(const std::string& path, GgufFile::Contents contents) {
  BATON_ASSIGN_OR_RETURN(MappedFile opened, MappedFile::Open(path));
  const auto file = std::make_shared<const MappedFile>(std::move(opened));
  BATON_ASSIGN_OR_RETURN(const GgufFile gguf, GgufFile::Parse(file->bytes(), contents));
  BATON_ASSIGN_OR_RETURN(ModelParts parts, ReadGgufModel(gguf));
  parts.memory.push_back(file);
  return parts;
}

// The last part of a path: "llama/" and "llama" are "llama", "x.gguf" is "x".
std::string NameOf(const std::string& path) {
  std::error_code error;
  fs::path whole = fs::absolute(path, error).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  return whole.extension() == ".gguf" ? whole.stem().string() : whole.filename().string();
}

// Says which file an error is about.
absl::Status About(const std::string& path, const absl::Status& status) {
  if (Message(status).starts_with(path)) return status;
  return absl::Status(status.code(), Cat(path, ": ", Message(status)));
}

absl::StatusOr<ModelParts> ReadWeights(const std::string& path) {
  if (IsDirectory(path)) return ReadHfModel(path);
  if (Exists(path)) return ReadGgufFile(path, GgufFile::Contents::kWhole);
  const bool preset = ShapePreset(path).ok();
  return NotFound("there is nothing here: ", kExpected, preset ? "; this shape's name needs --load-format dummy" : "");
}

absl::StatusOr<ModelParts> ReadShapes(const std::string& path) {
  if (IsDirectory(path)) return ReadHfConfiguration(path);
  if (Exists(path)) return ReadGgufFile(path, GgufFile::Contents::kHeaderOnly);
  absl::StatusOr<ModelConfig> preset = ShapePreset(path);
  if (!preset.ok()) return NotFound("there is nothing here: ", kExpected, ", or a shape: ", Message(preset.status()));
  ModelParts parts;
  parts.config = *std::move(preset);
  return parts;
}

absl::StatusOr<ModelParts> ReadParts(const std::string& path, LoadFormat format, uint64_t seed) {
  if (format == LoadFormat::kAuto) return ReadWeights(path);
  BATON_ASSIGN_OR_RETURN(ModelParts parts, ReadShapes(path));
  BATON_RETURN_IF_ERROR(MakeDummyWeights(seed, parts, format == LoadFormat::kDummyRecipes));
  return parts;
}

}  // namespace

Model::Model(ModelParts parts, std::string name, std::string fingerprint, int64_t weight_bytes)
    : parts_(std::move(parts)),
      name_(std::move(name)),
      fingerprint_(std::move(fingerprint)),
      weight_bytes_(weight_bytes) {}

absl::StatusOr<Model> Model::Create(ModelParts parts, std::string name) {
  BATON_RETURN_IF_ERROR(CheckConfig(parts.config));
  BATON_RETURN_IF_ERROR(ArrangeWeights(parts.config, parts.tensors));
  int64_t bytes = 0;
  for (const auto& [tensor_name, tensor] : parts.tensors) {
    if (!(parts.config.tie_embeddings && tensor_name == "lm_head.weight")) bytes += tensor.bytes;
  }
  std::string fingerprint = FingerprintModel(parts.config, parts.tensors);
  return Model(std::move(parts), std::move(name), std::move(fingerprint), bytes);
}

const TensorView* Model::Find(std::string_view name) const {
  const auto it = parts_.tensors.find(std::string(name));
  return it == parts_.tensors.end() ? nullptr : &it->second;
}

absl::StatusOr<Model> LoadModel(const std::string& path, LoadFormat format, uint64_t seed) {
  absl::StatusOr<ModelParts> parts = ReadParts(path, format, seed);
  if (!parts.ok()) return About(path, parts.status());
  if (const int32_t window = parts->config.sliding_window; window > 0) {
    LogWarning(path, ": attention over a sliding window is not supported: the context is limited to the window, ",
               window, " tokens");
  }
  absl::StatusOr<Model> model = Model::Create(*std::move(parts), NameOf(path));
  if (!model.ok()) return About(path, model.status());
  if (model->config().quantization.kv_cache_fp8 && model->Find("model.layers.0.self_attn.k_scale") == nullptr) {
    LogWarning(path, ": the configuration says that K and V are FP8, but there are no k_scale and v_scale: 1 is used");
  }
  return model;
}

}  // namespace baton
