#include "backend/cuda/step_observation.h"

#include "device/cuda_device.h"

namespace baton::cuda {
namespace {

template <typename T>
absl::StatusOr<std::vector<T>> Download(const T* device, int64_t count, cudaStream_t stream) {
  std::vector<T> host(device == nullptr ? 0 : count);
  if (host.empty()) return host;
  BATON_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
  BATON_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  return host;
}

}  // namespace

absl::StatusOr<std::vector<float>> CopyToHost(const float* device, int64_t count, cudaStream_t stream) {
  return Download(device, count, stream);
}

absl::StatusOr<std::vector<float>> ReadHiddenStates(const HiddenStates& states, cudaStream_t stream) {
  const RowScales& scales = states.delta_scales;
  const int64_t count = int64_t{states.rows} * states.width;
  BATON_ASSIGN_OR_RETURN(const auto residual, Download(states.residual, count, stream));
  BATON_ASSIGN_OR_RETURN(const auto delta, Download(states.delta, count, stream));
  BATON_ASSIGN_OR_RETURN(const auto token, Download(scales.token, states.rows, stream));
  BATON_ASSIGN_OR_RETURN(const auto channel, Download(scales.channel, states.width, stream));
  BATON_ASSIGN_OR_RETURN(const auto bias, Download(scales.bias, states.width, stream));
  std::vector<float> hidden(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = i % states.width;
    float sum = __bfloat162float(delta[i]);
    if (!channel.empty()) sum *= __half2float(channel[column]);
    sum *= token.empty() ? scales.unit : token[i / states.width] * scales.unit;
    if (!bias.empty()) sum += bias[column];
    hidden[i] = __bfloat162float(__float2bfloat16(__bfloat162float(residual[i]) + sum));
  }
  return hidden;
}

}  // namespace baton::cuda
