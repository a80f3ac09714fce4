// The inner loops of the CPU backend, as a table that is chosen once by what the machine can do.
//
// Bits: within one table, every output element is computed by one order of operations, whatever the batch, the tile
// and the thread. Between tables results differ in the last bits, so the table's name is part of the fingerprint.
// Threading: pure functions of their arguments.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "backend/cpu/activation_tiles.h"
#include "backend/cpu/packed_format.h"
#include "base/status.h"

namespace baton::cpu {

// Softmax sums run over tiles of tokens from position 0, within sections that are merged in order: so a long sequence
// can be shared among threads, to the same bits.
inline constexpr int kAttentionTile = 32;      // tokens
inline constexpr int kAttentionSection = 256;  // tokens
inline constexpr int kMultiplyScratch = 40 * 1024;

struct MultiplyArgs {
  const uint8_t* panel;  // one panel of the weight
  int64_t k;             // columns of the weight
  const float* floats;   // kFloat: [columns][k] with stride `float_stride`
  int64_t float_stride;
  const uint8_t* tiles;     // other inputs: the quantized columns of this group
  const Outlier* outliers;  // of int8 input: [columns][outliers_each]
  int outliers_each;
  int columns;         // at most kColumnGroup
  float* out;          // [columns][16], stride `out_stride`
  int64_t out_stride;  // floats
  uint8_t* scratch;    // kMultiplyScratch bytes, 64-byte aligned
};

struct NormArgs {
  float* residual;     // [size], updated when there is a delta
  const float* delta;  // [size] or null
  const float* weight;
  int64_t size;
  float epsilon;
  float* out;  // [size]
};

// Stored type of K and V. kI8: see int8_row.h.
enum class KvType : uint8_t { kF32, kF16, kI8 };

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
  int row_bytes;
  KvType kv;
  float* scratch;  // AttentionScratchFloats, 64-byte aligned
  // Of one query only: take sections [first_section, first_section + sections) and leave their sums in `partials`,
  // [sections][heads][head_dim + 2], for merge_sections; `out` is not written. Null: everything.
  float* partials = nullptr;
  int first_section = 0;
  int sections = 0;
};
constexpr int64_t AttentionScratchFloats(int64_t queries, int64_t heads, int64_t head_dim) {
  return 2 * kAttentionTile * head_dim + queries * heads * (3 * head_dim + kAttentionTile + 5) + 64;
}
constexpr int64_t PartialFloats(int64_t heads, int64_t head_dim) { return heads * (head_dim + 2); }

struct Kernels {
  const char* name;                // "avx2", "plain"
  int tile_width[kNumInputKinds];  // columns of a tile of large groups, by InputKind
  // Quantizes `width` columns of `k` floats into one tile; outliers: [width][OutliersOf(kind, k)].
  void (*quantize_tile)(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile,
                        Outlier* outliers);
  void (*multiply[kNumPackedKinds])(const MultiplyArgs& args);  // by PackedKind
  void (*norm)(const NormArgs& args);
  // Rotates `heads` heads at x; cosines and sines: [head_dim / 2].
  void (*rotate)(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved);
  void (*store_half)(const float* x, int64_t count, uint16_t* out);
  // A row of V or K of KvType::kI8; count is a multiple of 8.
  void (*store_int8)(const float* x, int64_t count, uint8_t* out);
  void (*store_int8_key)(const float* x, int64_t count, uint8_t* out);
  void (*attention)(const AttentionArgs& args);
  // All sections of one query, [sections][heads][head_dim + 2] → out [heads][head_dim]. Overwrites `partials`.
  void (*merge_sections)(float* partials, int sections, int heads, int head_dim, float* out);
  void (*swiglu)(const float* gate, const float* up, int64_t count, float* out);
};

const Kernels& PlainKernels();
// All that this machine can run, the best first, PlainKernels last.
std::span<const Kernels* const> KernelsHere();
// By name; "" and "auto" are the best. InvalidArgument for an unknown name, FailedPrecondition for what the machine
// lacks.
absl::StatusOr<const Kernels*> ChooseKernels(std::string_view name);

}  // namespace baton::cpu
