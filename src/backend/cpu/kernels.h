// The inner loops of the CPU backend, as a table that is chosen once by what the machine can do.
//
// Bits: within one table, every output element is computed by one order of operations, whatever the batch, the tile
// and the thread. Between tables results differ in the last bits, so the table's name is part of the fingerprint.
// Threading: pure functions of their arguments.
#pragma once

#include <cstdint>

#include "backend/cpu/activation_tiles.h"
#include "backend/cpu/packed_format.h"

namespace baton::cpu {

inline constexpr int kAttentionTile = 32;  // tokens; softmax sums run over such tiles from position 0
inline constexpr int kMultiplyScratch = 40 * 1024;

struct MultiplyArgs {
  const uint8_t* panel;  // one panel of the weight
  int64_t k;             // columns of the weight
  const float* floats;   // kFloat: [columns][k] with stride `float_stride`
  int64_t float_stride;
  const uint8_t* tiles;  // kInt8, kInt16: quantized input of this group of columns
  int columns;           // at most kColumnGroup
  float* out;            // [columns][16], stride `out_stride`
  int64_t out_stride;    // floats
  uint8_t* scratch;      // kMultiplyScratch bytes, 64-byte aligned
};

struct NormArgs {
  float* residual;     // [size], updated when there is a delta
  const float* delta;  // [size] or null
  const float* weight;
  int64_t size;
  float epsilon;
  float* out;  // [size]
};

// Some queries of one sequence against all it may see, for one KV head and the query heads that share it.
struct AttentionArgs {
  const float* q;      // [queries][heads][head_dim], stride `q_stride` between queries
  float* out;          // as q, stride `out_stride`
  int64_t q_stride;    // floats
  int64_t out_stride;  // floats
  int queries;
  int heads;           // that share the KV head
  int head_dim;        // a multiple of 8
  int first_position;  // of the first query
  float scale;         // of the scores
  const uint8_t* k;    // plane of block 0: [token][head_dim]
  const uint8_t* v;
  int64_t block_bytes;  // from a block to the next
  const int32_t* block_table;
  int block_size;
  bool f16;        // stored type: F16, else F32
  float* scratch;  // AttentionScratchFloats, 64-byte aligned
};
constexpr int64_t AttentionScratchFloats(int64_t queries, int64_t heads, int64_t head_dim) {
  return 2 * kAttentionTile * head_dim + queries * heads * (2 * head_dim + 2) + 2 * kAttentionTile + 64;
}

struct Kernels {
  const char* name;  // "avx2", "plain"
  // Quantizes `width` columns of `k` floats into one tile (kInt8 or kInt16).
  void (*quantize_tile)(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile);
  void (*multiply[kNumPackedKinds])(const MultiplyArgs& args);  // by PackedKind
  void (*norm)(const NormArgs& args);
  // Rotates `heads` heads at x; cosines and sines: [head_dim / 2].
  void (*rotate)(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved);
  void (*store_half)(const float* x, int64_t count, uint16_t* out);
  void (*attention)(const AttentionArgs& args);
  void (*swiglu)(const float* gate, const float* up, int64_t count, float* out);
};

const Kernels& PlainKernels();
// Null when the machine has no AVX2, FMA and F16C.
const Kernels* Avx2Kernels();

}  // namespace baton::cpu
