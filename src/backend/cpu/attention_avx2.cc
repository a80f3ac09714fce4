// Attention over the paged KV cache for AVX2: softmax over tiles of 32 tokens with a running maximum (online softmax,
// arXiv:1805.02867).
//
// A query's tiles begin at position 0. A score adds 8 lanes over the head's dimensions in order, then the lanes in one
// tree; values add tokens in order; sections are merged in order. So the result does not depend on which queries share
// a call, on the block size, on where a chunk began, or on which thread took which section. Two variants with the same
// bits: many queries read a tile of K and V that was widened to floats once; a single query (decode) reads K and V as
// they lie, for up to three heads at a time, and prefetches. A row's scale (KvType::kI8) multiplies its score and its
// weight, not its elements.
#include "backend/cpu/attention_avx2.h"

namespace baton::cpu {
namespace {

using avx2::Exp;
using avx2::Running;
using avx2::State;

// (totals, total) += (running, values) of a later section, for one row.
BATON_INLINE void Merge(int dim, const Running& running, const float* values, Running& totals, float* total) {
  const float maximum = totals.maximum >= running.maximum ? totals.maximum : running.maximum;
  const __m256 shift = _mm256_set1_ps(maximum);
  const __m256 before = Exp(_mm256_sub_ps(_mm256_set1_ps(totals.maximum), shift));
  const __m256 added = Exp(_mm256_sub_ps(_mm256_set1_ps(running.maximum), shift));
  for (int d = 0; d < dim; d += 8) {
    const __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(total + d), before);
    _mm256_storeu_ps(total + d, _mm256_fmadd_ps(_mm256_loadu_ps(values + d), added, sum));
  }
  totals.sum = __builtin_fmaf(running.sum, _mm256_cvtss_f32(added), totals.sum * _mm256_cvtss_f32(before));
  totals.maximum = maximum;
}

BATON_INLINE void Divide(int dim, const float* values, float sum, float* out) {
  const __m256 inverse = _mm256_set1_ps(1.0f / sum);
  for (int d = 0; d < dim; d += 8) _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_loadu_ps(values + d), inverse));
}

using Variant = void (*)(const AttentionArgs& args, int begin, int end, const State& state);

void Attend(Variant variant, const AttentionArgs& args, int begin, int end, const State& state) {
  const int rows = args.queries * args.heads;
  std::memset(state.values, 0, sizeof(float) * rows * args.head_dim);
  for (int row = 0; row < rows; ++row) state.running[row] = {-__builtin_inff(), 0};
  variant(args, begin, end, state);
}

void ScaleQueries(const AttentionArgs& args, float* q) {
  const int dim = args.head_dim;
  const __m256 scale = _mm256_set1_ps(args.scale);
  for (int row = 0; row < args.queries * args.heads; ++row) {
    const float* source = args.q + row / args.heads * args.q_stride + row % args.heads * dim;
    for (int d = 0; d < dim; d += 8) {
      _mm256_store_ps(q + row * dim + d, _mm256_mul_ps(_mm256_loadu_ps(source + d), scale));
    }
  }
}

// One query's sections, unmerged.
void AttendSections(Variant variant, const AttentionArgs& args, int end, const State& state) {
  const int dim = args.head_dim;
  float* partial = args.partials;
  for (int section = args.first_section; section < args.first_section + args.sections; ++section) {
    const int begin = section * kAttentionSection;
    Attend(variant, args, begin, end - begin < kAttentionSection ? end : begin + kAttentionSection, state);
    for (int head = 0; head < args.heads; ++head, partial += dim + 2) {
      std::memcpy(partial, state.values + head * dim, sizeof(float) * dim);
      partial[dim] = state.running[head].maximum;
      partial[dim + 1] = state.running[head].sum;
    }
  }
}

void Attention(Variant variant, const AttentionArgs& args) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  const int end = args.first_position + args.queries;  // tokens that the last query sees
  const State state(args, rows);
  ScaleQueries(args, state.q);
  if (args.partials != nullptr) return AttendSections(variant, args, end, state);
  for (int begin = 0; begin < end; begin += kAttentionSection) {
    const bool last = end - begin <= kAttentionSection;
    Attend(variant, args, begin, last ? end : begin + kAttentionSection, state);
    for (int row = 0; row < rows; ++row) {
      const bool sees = args.first_position + row / args.heads >= begin;
      if (begin == 0) {
        if (last) continue;
        state.totals[row] = state.running[row];
        std::memcpy(state.total + row * dim, state.values + row * dim, sizeof(float) * dim);
      } else if (sees) {
        Merge(dim, state.running[row], state.values + row * dim, state.totals[row], state.total + row * dim);
      }
    }
  }
  const bool merged = end > kAttentionSection;
  for (int row = 0; row < rows; ++row) {
    float* out = args.out + row / args.heads * args.out_stride + row % args.heads * dim;
    Divide(dim, (merged ? state.total : state.values) + row * dim, (merged ? state.totals : state.running)[row].sum,
           out);
  }
}

}  // namespace

void AttentionAvx2(const AttentionArgs& args) { Attention(args.queries == 1 ? AttendOneAvx2 : AttendManyAvx2, args); }
// One query is bound by memory, and by conversions that 512 bits do not speed up.
void AttentionAvx512(const AttentionArgs& args) {
  Attention(args.queries == 1 ? AttendOneAvx2 : AttendManyAvx512, args);
}

void MergeSectionsAvx2(float* partials, int sections, int heads, int dim, float* out) {
  const int stride = dim + 2;
  for (int head = 0; head < heads; ++head) {
    float* total = partials + head * stride;
    Running totals = {total[dim], total[dim + 1]};
    for (int section = 1; section < sections; ++section) {
      const float* partial = partials + (section * heads + head) * stride;
      Merge(dim, {partial[dim], partial[dim + 1]}, partial, totals, total);
    }
    Divide(dim, total, totals.sum, out + head * dim);
  }
}

}  // namespace baton::cpu
