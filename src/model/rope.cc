#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace baton {

std::vector<float> RopeInverseFrequencies(int32_t head_dim, double theta) {
  std::vector<float> frequencies(head_dim / 2);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    frequencies[i] = static_cast<float>(std::pow(theta, -2.0 * i / head_dim));
  }
  return frequencies;
}

void ScaleRopeLinear(double factor, std::span<float> inverse_frequencies) {
  for (float& frequency : inverse_frequencies) frequency = static_cast<float>(frequency / factor);
}

void ScaleRopeLlama3(const Llama3RopeScaling& scaling, std::span<float> inverse_frequencies) {
  const double low = scaling.low_frequency_factor;
  const double high = scaling.high_frequency_factor;
  for (float& frequency : inverse_frequencies) {
    // How often the embedding turns within the original context.
    const double turns = scaling.original_max_position * frequency / (2 * std::numbers::pi);
    double unscaled = 0;  // the share that stays as it is
    if (turns >= high) {
      unscaled = 1;
    } else if (turns > low) {
      unscaled = (turns - low) / (high - low);
    }
    frequency = static_cast<float>(frequency * (unscaled + (1 - unscaled) / scaling.factor));
  }
}

}  // namespace baton
