// Random numbers that are a function of what they are for: the same (seed, choice, position) draws the same number on
// every worker, in every batch, after every retry. Threefry-like mixing by two rounds of SplitMix64's finalizer.
#pragma once

#include <cstdint>

namespace baton {

constexpr uint64_t MixBits(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// `position` is the index of the sampled token in the whole sequence, prompt included.
constexpr uint64_t KeyedBits(uint64_t seed, uint64_t choice, uint64_t position) {
  uint64_t bits = MixBits(seed + 0x9e3779b97f4a7c15ull);
  bits = MixBits(bits ^ (choice * 0xd1342543de82ef95ull + 0x632be59bd9b4e019ull));
  return MixBits(bits ^ (position * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull));
}

// Uniform in [0, 1), 53 bits.
constexpr double KeyedUniform(uint64_t seed, uint64_t choice, uint64_t position) {
  return static_cast<double>(KeyedBits(seed, choice, position) >> 11) * 0x1.0p-53;
}

}  // namespace baton
