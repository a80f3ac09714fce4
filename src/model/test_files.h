// Builds tiny model files in memory for the tests of this folder.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/gguf.h"

namespace baton {

// A GGUF file, written in the order of calls: all keys, then all tensors.
class GgufBuilder {
 public:
  GgufBuilder& Key(std::string_view key, std::string_view text) {
    BeginKey(key, GgufType::kString);
    Text(metadata_, text);
    return *this;
  }
  GgufBuilder& Key(std::string_view key, const char* text) { return Key(key, std::string_view(text)); }
  GgufBuilder& Key(std::string_view key, uint32_t number) { return Number(key, GgufType::kUint32, number); }
  GgufBuilder& Key(std::string_view key, int64_t number) { return Number(key, GgufType::kInt64, number); }
  GgufBuilder& Key(std::string_view key, float number) { return Number(key, GgufType::kFloat32, number); }
  GgufBuilder& Key(std::string_view key, bool flag) { return Number(key, GgufType::kBool, static_cast<uint8_t>(flag)); }
  GgufBuilder& Key(std::string_view key, const std::vector<std::string>& texts) {
    BeginKey(key, GgufType::kArray);
    Put(metadata_, static_cast<uint32_t>(GgufType::kString));
    Put(metadata_, static_cast<uint64_t>(texts.size()));
    for (const std::string& text : texts) Text(metadata_, text);
    return *this;
  }
  GgufBuilder& Key(std::string_view key, const std::vector<int32_t>& numbers) {
    BeginKey(key, GgufType::kArray);
    Put(metadata_, static_cast<uint32_t>(GgufType::kInt32));
    Put(metadata_, static_cast<uint64_t>(numbers.size()));
    for (const int32_t number : numbers) Put(metadata_, number);
    return *this;
  }
  // Anything else: the bytes that follow the key.
  GgufBuilder& RawKey(std::string_view key, GgufType type, const std::string& bytes) {
    BeginKey(key, type);
    metadata_ += bytes;
    return *this;
  }

  // `shape` innermost first, as in the file. Data are the bytes 0, 1, 2, … unless given.
  GgufBuilder& Tensor(std::string_view name, const std::vector<uint64_t>& shape, uint32_t type, size_t bytes,
                      const void* data = nullptr) {
    data_.resize((data_.size() + 31) / 32 * 32);
    return TensorAt(name, shape, type, data_.size(), bytes, data);
  }
  GgufBuilder& TensorAt(std::string_view name, const std::vector<uint64_t>& shape, uint32_t type, uint64_t offset,
                        size_t bytes, const void* data = nullptr) {
    Text(tensors_, name);
    Put(tensors_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t extent : shape) Put(tensors_, extent);
    Put(tensors_, type);
    Put(tensors_, offset);
    for (size_t i = 0; i < bytes; ++i) {
      data_.push_back(data == nullptr ? static_cast<char>(i) : static_cast<const char*>(data)[i]);
    }
    ++num_tensors_;
    return *this;
  }
  GgufBuilder& FloatTensor(std::string_view name, const std::vector<uint64_t>& shape) {
    size_t elements = 1;
    for (const uint64_t extent : shape) elements *= extent;
    const std::vector<float> values(elements, 0.5f);
    return Tensor(name, shape, 0, elements * sizeof(float), values.data());
  }

  std::string Build(uint32_t version = 3) const {
    std::string out = "GGUF";
    Put(out, version);
    Put(out, num_tensors_);
    Put(out, num_keys_);
    out += metadata_ + tensors_;
    if (num_tensors_ > 0) out.resize((out.size() + 31) / 32 * 32);
    return out + data_;
  }

  template <typename Value>
  static void Put(std::string& out, Value value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static void Text(std::string& out, std::string_view text) {
    Put(out, static_cast<uint64_t>(text.size()));
    out += text;
  }

 private:
  void BeginKey(std::string_view key, GgufType type) {
    Text(metadata_, key);
    Put(metadata_, static_cast<uint32_t>(type));
    ++num_keys_;
  }
  template <typename Value>
  GgufBuilder& Number(std::string_view key, GgufType type, Value value) {
    BeginKey(key, type);
    Put(metadata_, value);
    return *this;
  }

  std::string metadata_, tensors_, data_;
  uint64_t num_tensors_ = 0, num_keys_ = 0;
};

// A llama of one layer: hidden 8, 2 heads, 1 KV head, intermediate 16, 5 tokens.
inline GgufBuilder TinyGgufLlama(std::string_view architecture = "llama") {
  const auto key = [&](std::string_view name) { return Cat(architecture, ".", name); };
  GgufBuilder file;
  file.Key("general.architecture", architecture).Key(key("block_count"), 1u).Key(key("embedding_length"), 8u);
  file.Key(key("feed_forward_length"), 16u).Key(key("context_length"), 64u).Key(key("attention.head_count"), 2u);
  file.Key(key("attention.head_count_kv"), 1u).Key(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  file.FloatTensor("token_embd.weight", {8, 5}).FloatTensor("output_norm.weight", {8});
  file.FloatTensor("blk.0.attn_norm.weight", {8}).FloatTensor("blk.0.ffn_norm.weight", {8});
  file.FloatTensor("blk.0.attn_q.weight", {8, 8}).FloatTensor("blk.0.attn_k.weight", {8, 4});
  file.FloatTensor("blk.0.attn_v.weight", {8, 4}).FloatTensor("blk.0.attn_output.weight", {8, 8});
  file.FloatTensor("blk.0.ffn_gate.weight", {8, 16}).FloatTensor("blk.0.ffn_up.weight", {8, 16});
  return file.FloatTensor("blk.0.ffn_down.weight", {16, 8});
}

inline GgufBuilder& AddTinyTokenizer(GgufBuilder& file) {
  file.Key("tokenizer.ggml.model", "gpt2").Key("tokenizer.ggml.pre", "llama-bpe");
  file.Key("tokenizer.ggml.tokens", std::vector<std::string>{"<|s|>", "a", "b", "ab", "<|eot_id|>"});
  file.Key("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1, 3});
  file.Key("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  return file.Key("tokenizer.ggml.bos_token_id", 0u).Key("tokenizer.ggml.eos_token_id", 0u);
}

inline std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// A copy that ends where its allocation ends, so that AddressSanitizer sees a read beyond it.
inline std::vector<uint8_t> Prefix(std::string_view text, size_t length) {
  return {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length)};
}

inline std::string SafetensorsFile(std::string_view header, std::string_view data) {
  std::string out;
  GgufBuilder::Put(out, static_cast<uint64_t>(header.size()));
  out += header;
  return out += data;
}

// A directory that is removed at the end of its scope.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "baton_model_XXXXXX").string();
    path_ = ::mkdtemp(name.data()) == nullptr ? "" : name;
  }
  ~TemporaryDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string Write(std::string_view name, std::string_view contents) const {
    const std::string path = Cat(path_, "/", name);
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Whether `status` is an error whose message has all of `parts`.
inline bool Says(const absl::Status& status, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) {
    if (status.ok() || Message(status).find(part) == std::string_view::npos) return false;
  }
  return true;
}

}  // namespace baton
