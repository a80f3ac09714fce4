#include "backend/cuda/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace baton::cuda {
namespace {

using Kind = CudaMemory::Kind;

float HalfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | magnitude << 13);
  // Exponents differ by 112: a multiplication places them and subnormals alike.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }

// Appends a small tensor's elements as floats.
absl::Status AppendFloats(const TensorView& tensor, int64_t count, std::vector<float>& out) {
  if (!IsFloat(tensor.dtype)) {
    return Unimplemented("the CUDA backend reads scales, biases and norms as F32, F16 or BF16, found ",
                         TraitsOf(tensor.dtype).name);
  }
  if (tensor.bytes < DTypeRowBytes(tensor.dtype, count)) {
    return InvalidArgument("expected a tensor of ", count, " elements, found ", tensor.bytes, " bytes of ",
                           TraitsOf(tensor.dtype).name);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (tensor.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, tensor.data + i * 4, 4);
      out.push_back(value);
    } else {
      uint16_t bits;
      std::memcpy(&bits, tensor.data + i * 2, 2);
      out.push_back(tensor.dtype == DType::kF16 ? HalfToFloat(bits) : std::bit_cast<float>(uint32_t{bits} << 16));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CudaMemory> UploadFloats(const std::vector<float>& values, Uploader& uploader) {
  const int64_t bytes = static_cast<int64_t>(values.size()) * 4;
  BATON_ASSIGN_OR_RETURN(CudaMemory memory, CudaMemory::Allocate(Kind::kDevice, bytes, "scales and norms"));
  BATON_RETURN_IF_ERROR(uploader.Copy(memory.data(), values.data(), bytes));
  return memory;
}

// Scales as FP16 in a unit that puts the largest just below 2^15: 29 binary orders of magnitude keep 11 bits.
absl::Status UploadChannelScales(const std::vector<float>& scales, Uploader& uploader, CudaLinear& linear) {
  const float largest = *std::max_element(scales.begin(), scales.end());
  if (!(largest > 0) || !std::isfinite(largest)) {
    return InvalidArgument("expected positive finite weight scales, found a largest one of ", largest);
  }
  int exponent = 0;
  std::frexp(largest, &exponent);
  linear.scale_unit = std::ldexp(1.0f, exponent - 15);
  std::vector<__half> halves;
  for (float scale : scales) halves.push_back(__float2half(scale / linear.scale_unit));
  const int64_t bytes = static_cast<int64_t>(halves.size()) * 2;
  BATON_ASSIGN_OR_RETURN(linear.channel_scale, CudaMemory::Allocate(Kind::kDevice, bytes, "scales"));
  return uploader.Copy(linear.channel_scale.data(), halves.data(), bytes);
}

absl::Status CheckSources(std::span<const LinearSource> sources) {
  if (sources.empty()) return InvalidArgument("a linear layer needs at least one weight");
  const TensorView& first = sources[0].weight;
  if (!IsFloat(first.dtype) && first.dtype != DType::kF8E4M3) {
    return Unimplemented("the CUDA backend has no kernels for weights of type ", TraitsOf(first.dtype).name,
                         "; it takes F8_E4M3, BF16, F16 and F32");
  }
  const bool fp8 = first.dtype == DType::kF8E4M3;
  for (const LinearSource& source : sources) {
    if (source.weight.columns() != first.columns() || (source.weight.dtype == DType::kF8E4M3) != fp8) {
      return InvalidArgument("weights that form one layer differ: ", source.weight.columns(), " columns of ",
                             TraitsOf(source.weight.dtype).name, " and ", first.columns(), " of ",
                             TraitsOf(first.dtype).name);
    }
    if (source.weight.bytes < DTypeRowBytes(source.weight.dtype, source.weight.rows() * source.weight.columns())) {
      return InvalidArgument("a weight of ", source.weight.rows(), " × ", source.weight.columns(), " has only ",
                             source.weight.bytes, " bytes");
    }
  }
  return absl::OkStatus();
}

// FP32 and FP16 weights become BF16 on the device, a piece at a time.
absl::Status UploadAsBf16(const TensorView& weight, __nv_bfloat16* to, Uploader& uploader) {
  constexpr int64_t kPiece = 16 << 20;  // elements
  const bool fp32 = weight.dtype == DType::kF32;
  const int64_t count = weight.rows() * weight.columns();
  const int64_t element = fp32 ? 4 : 2;
  BATON_ASSIGN_OR_RETURN(CudaMemory staging,
                         CudaMemory::Allocate(Kind::kDevice, std::min(count, kPiece) * element, "converting weights"));
  for (int64_t at = 0; at < count; at += kPiece) {
    const int64_t n = std::min(kPiece, count - at);
    BATON_RETURN_IF_ERROR(uploader.Copy(staging.data(), weight.data + at * element, n * element));
    BATON_RETURN_IF_CUDA_ERROR(LaunchToBf16(staging.data(), fp32, to + at, n, uploader.stream()));
  }
  return uploader.Finish();  // the staging memory goes
}

absl::Status AppendChannelScales(const LinearSource& source, std::vector<float>& scales) {
  const int64_t rows = source.weight.rows();
  if (source.scale.data == nullptr) {
    scales.insert(scales.end(), rows, 1.0f);
    return absl::OkStatus();
  }
  const int64_t count = source.scale.bytes / TraitsOf(source.scale.dtype).block_bytes;
  if (count != 1 && count != rows) {
    return InvalidArgument("expected FP8 weight scales for the tensor or for each of its ", rows, " rows, found ",
                           count, "; scales for blocks are not supported");
  }
  std::vector<float> values;
  BATON_RETURN_IF_ERROR(AppendFloats(source.scale, count, values));
  for (int64_t row = 0; row < rows; ++row) scales.push_back(values[count == 1 ? 0 : row]);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Uploader> Uploader::Create(cudaStream_t stream) {
  Uploader uploader;
  uploader.stream_ = stream;
  for (int i = 0; i < 2; ++i) {
    BATON_ASSIGN_OR_RETURN(uploader.buffers_[i], CudaMemory::Allocate(Kind::kPinned, kBufferBytes, "loading weights"));
    BATON_ASSIGN_OR_RETURN(uploader.free_[i], CudaEvent::Create(false));
  }
  return uploader;
}

absl::Status Uploader::Copy(void* device, const void* host, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kBufferBytes) {
    const int64_t n = std::min(kBufferBytes, bytes - at);
    BATON_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(free_[next_].get()));
    std::memcpy(buffers_[next_].data(), static_cast<const uint8_t*>(host) + at, n);
    BATON_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(static_cast<uint8_t*>(device) + at, buffers_[next_].data(), n,
                                               cudaMemcpyHostToDevice, stream_));
    BATON_RETURN_IF_CUDA_ERROR(cudaEventRecord(free_[next_].get(), stream_));
    next_ ^= 1;
  }
  return absl::OkStatus();
}

absl::Status Uploader::Make(void* device, const TensorRecipe& recipe, int64_t elements) {
  const auto [table, added] = tables_.try_emplace(recipe.table);
  if (added) {
    BATON_ASSIGN_OR_RETURN(table->second, CudaMemory::Allocate(Kind::kDevice, recipe.table_bytes(), "dummy weights"));
    BATON_RETURN_IF_ERROR(Copy(table->second.data(), recipe.table, recipe.table_bytes()));
  }
  return CudaStatus(LaunchMakeElements(recipe, table->second.data(), device, elements, stream_),
                    "making dummy weights");
}

absl::Status Uploader::Finish() { return CudaStatus(cudaStreamSynchronize(stream_), "loading weights"); }

// Matrices that are stacked keep their own weight scales, as scales of rows, but read one input: with static scales it
// takes the largest of theirs, so that none saturates earlier than it was calibrated to (vLLM's rule, too).
absl::StatusOr<std::unique_ptr<CudaLinear>> UploadLinear(std::span<const LinearSource> sources, Uploader& uploader) {
  BATON_RETURN_IF_ERROR(CheckSources(sources));
  auto linear = std::make_unique<CudaLinear>();
  linear->shape.k = sources[0].weight.columns();
  linear->shape.fp8 = sources[0].weight.dtype == DType::kF8E4M3;
  bool has_bias = false;
  for (const LinearSource& source : sources) {
    linear->shape.n += source.weight.rows();
    has_bias = has_bias || source.bias.data != nullptr;
    if (linear->shape.fp8) linear->input_scale = std::max(linear->input_scale, source.input_scale);
  }
  const GemmShape& shape = linear->shape;
  if (shape.k % (shape.fp8 ? 16 : 8) != 0 || shape.n % (shape.fp8 ? 16 : 8) != 0) {
    return Unimplemented("a linear layer of ", shape.n, " × ", shape.k, ": the tensor cores need multiples of ",
                         shape.fp8 ? 16 : 8);
  }
  const int64_t element = shape.fp8 ? 1 : 2;
  BATON_ASSIGN_OR_RETURN(linear->data, CudaMemory::Allocate(Kind::kDevice, shape.n * shape.k * element, "weights"));
  std::vector<float> scales;
  std::vector<float> bias;
  int64_t row = 0;
  for (const LinearSource& source : sources) {
    const TensorView& weight = source.weight;
    uint8_t* const to = linear->data.data() + row * shape.k * element;
    if (weight.recipe != nullptr) {
      if (weight.dtype != DType::kF8E4M3 && weight.dtype != DType::kBF16) {
        return Unimplemented("the CUDA backend makes dummy weights of F8_E4M3 and BF16, found ",
                             TraitsOf(weight.dtype).name);
      }
      BATON_RETURN_IF_ERROR(uploader.Make(to, *weight.recipe, weight.rows() * shape.k));
    } else if (weight.dtype == DType::kF8E4M3 || weight.dtype == DType::kBF16) {
      BATON_RETURN_IF_ERROR(uploader.Copy(to, weight.data, weight.rows() * shape.k * element));
    } else {
      BATON_RETURN_IF_ERROR(UploadAsBf16(weight, reinterpret_cast<__nv_bfloat16*>(to), uploader));
    }
    if (shape.fp8) BATON_RETURN_IF_ERROR(AppendChannelScales(source, scales));
    if (source.bias.data != nullptr) {
      BATON_RETURN_IF_ERROR(AppendFloats(source.bias, weight.rows(), bias));
    } else if (has_bias) {
      bias.insert(bias.end(), weight.rows(), 0.0f);
    }
    row += weight.rows();
  }
  if (shape.fp8) BATON_RETURN_IF_ERROR(UploadChannelScales(scales, uploader, *linear));
  if (has_bias) {
    BATON_ASSIGN_OR_RETURN(linear->bias, UploadFloats(bias, uploader));
  }
  return linear;
}

absl::StatusOr<std::unique_ptr<CudaVector>> UploadVector(const TensorView& source, Uploader& uploader) {
  auto vector = std::make_unique<CudaVector>();
  vector->width = static_cast<int32_t>(source.columns());
  std::vector<float> values;
  BATON_RETURN_IF_ERROR(AppendFloats(source, vector->width, values));
  BATON_ASSIGN_OR_RETURN(vector->data, UploadFloats(values, uploader));
  return vector;
}

}  // namespace baton::cuda
