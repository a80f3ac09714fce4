// Frequencies of rotary position embeddings (RoFormer, arXiv:2104.09864) and the scalings that extend their reach.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace baton {

// theta^(-2i / head_dim) for i in [0, head_dim / 2).
std::vector<float> RopeInverseFrequencies(int32_t head_dim, double theta);

// Position interpolation (arXiv:2306.15595): every frequency divided by `factor`.
void ScaleRopeLinear(double factor, std::span<float> inverse_frequencies);

// Llama 3.1's: wavelengths longer than original_max_position / low_frequency_factor are stretched by `factor`, those
// shorter than original_max_position / high_frequency_factor are left alone, those between are blended.
struct Llama3RopeScaling {
  double factor = 8;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  double original_max_position = 8192;  // tokens
};
void ScaleRopeLlama3(const Llama3RopeScaling& scaling, std::span<float> inverse_frequencies);

}  // namespace baton
