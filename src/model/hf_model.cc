#include "model/hf_model.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "model/hf_config.h"
#include "model/json_object.h"
#include "model/mapped_file.h"
#include "model/safetensors.h"

namespace baton {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::string_view kIndex = "model.safetensors.index.json";
constexpr size_t kMaxJsonFile = 256 << 20;  // bytes; an index has a line for each tensor

// File names by the tensors that an index promises in them.
using Shards = std::map<std::string, std::vector<std::string>>;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

absl::StatusOr<std::string> ReadText(const fs::path& path) {
  BATON_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path.string()));
  if (file.bytes().size() > kMaxJsonFile) {
    return InvalidArgument(path.string(), ": ", file.bytes().size(), " bytes, at most ", kMaxJsonFile, " are accepted");
  }
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

// Empty when there is no such file.
absl::StatusOr<std::string> ReadOptionalText(const fs::path& path) {
  if (!Exists(path)) return std::string();
  return ReadText(path);
}

absl::StatusOr<Shards> ReadIndex(const fs::path& path) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  BATON_ASSIGN_OR_RETURN(const json::value parsed, ParseJson(text, kIndex));
  BATON_ASSIGN_OR_RETURN(const JsonObject index, JsonObject::From(parsed, kIndex));
  BATON_ASSIGN_OR_RETURN(const JsonObject weights, index.Object("weight_map"));
  Shards shards;
  for (const auto& [key, value] : weights.object()) {
    const std::string_view tensor(key.data(), key.size());
    BATON_ASSIGN_OR_RETURN(const std::string file, weights.String(tensor));
    // A name of a file beside the index, never a way out of the directory.
    if (file.empty() || file.find('/') != std::string::npos || file == "." || file == "..") {
      return InvalidArgument(kIndex, ": tensor '", tensor, "': expected the name of a file, found '", file, "'");
    }
    shards[file].emplace_back(tensor);
  }
  return shards;
}

// Without an index there must be one file.
absl::StatusOr<Shards> FindShards(const fs::path& directory) {
  if (Exists(directory / kIndex)) return ReadIndex(directory / kIndex);
  if (Exists(directory / "model.safetensors")) return Shards{{"model.safetensors", {}}};
  std::vector<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".safetensors") found.push_back(it->path().filename().string());
  }
  if (found.size() == 1) return Shards{{found[0], {}}};
  if (found.empty()) {
    return NotFound("no weights: expected model.safetensors, or ", kIndex,
                    " and the files that it names (PyTorch's .bin files are not read)");
  }
  return InvalidArgument(found.size(), " safetensors files but no ", kIndex, " that says what is where");
}

absl::Status ReadShard(const fs::path& path, const std::vector<std::string>& promised, ModelParts& parts) {
  BATON_ASSIGN_OR_RETURN(MappedFile opened, MappedFile::Open(path.string()));
  const auto file = std::make_shared<const MappedFile>(std::move(opened));
  absl::StatusOr<TensorMap> tensors = ParseSafetensors(file->bytes());
  if (!tensors.ok()) {
    return absl::Status(tensors.status().code(), Cat(path.filename().string(), ": ", Message(tensors.status())));
  }
  for (const std::string& name : promised) {
    if (!tensors->contains(name)) {
      return InvalidArgument(path.filename().string(), ": tensor '", name, "' is missing, which ", kIndex, " promises");
    }
  }
  for (auto& [name, view] : *tensors) {
    if (!parts.tensors.emplace(name, std::move(view)).second) {
      return InvalidArgument(path.filename().string(), ": tensor '", name, "' is in another file too");
    }
  }
  parts.memory.push_back(file);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelParts> ReadHfConfiguration(const std::string& directory) {
  const fs::path root(directory);
  if (!Exists(root / "config.json")) return NotFound("no config.json: expected a model's directory as on Hugging Face");
  BATON_ASSIGN_OR_RETURN(const std::string config, ReadText(root / "config.json"));
  BATON_ASSIGN_OR_RETURN(const std::string quantization, ReadOptionalText(root / "hf_quant_config.json"));
  BATON_ASSIGN_OR_RETURN(const std::string generation, ReadOptionalText(root / "generation_config.json"));
  ModelParts parts{.directory = directory};
  BATON_ASSIGN_OR_RETURN(parts.config, ParseHfConfig(config, quantization));
  if (!generation.empty()) {
    BATON_ASSIGN_OR_RETURN(parts.generation, ParseGenerationConfig(generation));
  }
  // Chat models often name the end of a turn only among the defaults.
  for (const TokenId eos : parts.generation.eos) {
    std::vector<TokenId>& all = parts.config.eos;
    if (std::find(all.begin(), all.end(), eos) == all.end()) all.push_back(eos);
  }
  return parts;
}

absl::StatusOr<ModelParts> ReadHfModel(const std::string& directory) {
  BATON_ASSIGN_OR_RETURN(ModelParts parts, ReadHfConfiguration(directory));
  BATON_ASSIGN_OR_RETURN(const Shards shards, FindShards(directory));
  for (const auto& [name, promised] : shards) {
    BATON_RETURN_IF_ERROR(ReadShard(fs::path(directory) / name, promised, parts));
  }
  return parts;
}

}  // namespace baton
