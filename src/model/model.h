// A model that is ready to be given to an engine: its configuration, and every weight under its Hugging Face name, from
// whatever file format it came.
//
//   BATON_ASSIGN_OR_RETURN(Model model, LoadModel(path));
//   const TensorView* query = model.Find("model.layers.0.self_attn.q_proj.weight");
//
// Threading: immutable once loaded. Ownership: a Model owns the mapped files and made-up weights that its views point
// into; it may be moved, and views stay valid until it is destroyed.
// Errors: NotFound when the path does not exist; InvalidArgument, naming the file, the tensor or the key, for anything
// that is not what it should be; Unimplemented, by name, for what is well-formed but not supported.
// Limits: see gguf.h and safetensors.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tensor.h"
#include "core/tokenizer_data.h"
#include "model/config.h"
#include "model/weights.h"

namespace baton {

// What a reader of one format fills in. Memory is anything that keeps the tensors' bytes alive.
struct ModelParts {
  ModelConfig config;
  GenerationDefaults generation;
  std::optional<TokenizerData> tokenizer;
  TensorMap tensors;
  std::vector<std::shared_ptr<const void>> memory;
  std::string directory;
};

class Model {
 public:
  // Checks the tensors against the configuration (see weights.h).
  static absl::StatusOr<Model> Create(ModelParts parts, std::string name);

  const ModelConfig& config() const { return parts_.config; }
  const GenerationDefaults& generation() const { return parts_.generation; }
  // Filled from GGUF; for Hugging Face directories read directory()'s tokenizer.json instead.
  const std::optional<TokenizerData>& tokenizer() const { return parts_.tokenizer; }
  const std::string& directory() const { return parts_.directory; }  // empty unless a Hugging Face directory
  const std::string& name() const { return name_; }                  // for /v1/models: the file's or directory's name
  // Null when there is none. Every weight that the configuration asks for is there, with the shape that it asks for;
  // "lm_head.weight" is also there when it is tied to the embedding. Scales of FP8 weights ("….weight_scale",
  // "….input_scale", "model.layers.N.self_attn.k_scale") have shape [out] or [1].
  const TensorView* Find(std::string_view name) const;
  const TensorMap& tensors() const { return parts_.tensors; }
  // 32 hex digits over configuration, names, types, shapes and sampled bytes of the weights: equal for equal models.
  const std::string& fingerprint() const { return fingerprint_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // of all tensors; a tied head counts once

 private:
  Model(ModelParts parts, std::string name, std::string fingerprint, int64_t weight_bytes);

  ModelParts parts_;
  std::string name_;
  std::string fingerprint_;
  int64_t weight_bytes_;
};

// kDummy: the shapes of the model with made-up weights (see dummy.h); no weight file is read. kDummyRecipes: the same
// weights, but large ones without memory (TensorView::recipe), for a backend that makes them itself.
enum class LoadFormat : uint8_t { kAuto, kDummy, kDummyRecipes };

// `path`: a .gguf file or a Hugging Face directory; for kDummy also the name of a shape (see shape_preset.h).
// `seed` varies dummy weights.
absl::StatusOr<Model> LoadModel(const std::string& path, LoadFormat format = LoadFormat::kAuto, uint64_t seed = 0);

}  // namespace baton
