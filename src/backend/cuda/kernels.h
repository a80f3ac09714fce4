// The device kernels of the CUDA backend, as plain launchers: pointers are device memory unless said, every launch goes
// into `stream` and returns the launch's error. Shapes stand beside the pointers; all matrices are row-major.
//
// Numbers: linear layers multiply FP8 (or BF16) with unit scales and leave BF16 sums; whoever reads them next
// multiplies by token scale × channel scale and adds the bias (RowScales). So no GEMM needs an epilogue of its own.
// Programmatic dependent launch: every kernel here may start while its predecessors run, and lets its successor do the
// same; before it touches anything that an earlier kernel of the step wrote, it waits for its predecessor's end. Since
// each waits before it ends, that is the end of all kernels before it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/tensor_recipe.h"

namespace baton::cuda {

inline constexpr int kBlockTokens = 128;  // tokens of a KV block
inline constexpr int kQueryTile = 128;    // query tokens of one prefill-attention tile

struct RowScales {
  const float* token = nullptr;     // [rows]; null: 1
  const __half* channel = nullptr;  // [width], in units of `unit`; null: 1. FP16, whose 11 bits are far finer than the
  float unit = 1.f;                 // sums' 8, since a row reads as many of these as it has sums
  const float* bias = nullptr;      // [width]; null: 0
};

// Where a row kernel leaves its result: FP8 with one scale a row, or BF16.
struct RowOutput {
  uint8_t* fp8 = nullptr;  // [rows][width]; null: use bf16
  float* scale = nullptr;  // [rows]
  __nv_bfloat16* bf16 = nullptr;
  float static_scale = 0.f;  // of all rows, what is too large saturating; 0: by each row's largest
};

// The KV cache: [block][kv_head][layer][K,V][token][head_dim]; inside a row, 16-byte chunk q of token t lies at
// q ^ (t & 7), or at q ^ (t / 2 & 3) in rows of 64 bytes.
struct KvCacheView {
  uint8_t* base = nullptr;
  int32_t kv_heads = 0;
  int32_t layers = 0;
  int32_t head_dim = 0;  // 64 or 128
  bool fp8 = false;      // E4M3, else BF16
};

// ---- rows ----
struct RowInfo {
  int32_t token;     // before LaunchLoadTables also TokenOfResult
  int32_t position;  // in its sequence; -1: a row of padding
  int32_t block;     // the KV block of that position
};

struct EmbedArgs {
  const __nv_bfloat16* table;  // [vocabulary][width]
  const RowInfo* info;         // [rows]
  __nv_bfloat16* residual;     // [rows][width]
  int32_t rows, width, vocabulary;
};
cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream);

struct RmsNormArgs {
  __nv_bfloat16* residual;     // [*][width]; receives residual + delta when write_residual
  const __nv_bfloat16* delta;  // [*][width] sums of a linear layer, or null
  RowScales delta_scales;
  const float* weight;         // [width]
  const int32_t* source_rows;  // [rows]: which rows to take; null: all in order
  RowOutput output;
  int32_t rows, width;
  float epsilon;
  bool write_residual;
  bool invariant = false;  // one kernel, whatever `rows`
};
cudaError_t LaunchRmsNorm(const RmsNormArgs& args, cudaStream_t stream);

struct SwiGluArgs {
  const __nv_bfloat16* gate_up;  // [rows][2 × width]: gate, then up
  RowScales scales;              // channel and bias: [2 × width]
  RowOutput output;
  int32_t rows, width;
  bool invariant = false;  // one kernel, whatever `rows`
};
cudaError_t LaunchSwiGlu(const SwiGluArgs& args, cudaStream_t stream);

struct QuantizeArgs {
  const __nv_bfloat16* input;  // [rows][width]
  RowOutput output;
  int32_t rows, width;
  bool invariant = false;  // one kernel, whatever `rows`
  float factor = 1.f;      // on the input
};
cudaError_t LaunchQuantize(const QuantizeArgs& args, cudaStream_t stream);

struct RopeAppendArgs {
  __nv_bfloat16*
      qkv;  // [rows][(heads + 2 kv_heads) × head_dim] sums; its Q part becomes FP16, rotated and × query_scale
  RowScales scales;
  const float2* rotary;  // [max position][head_dim / 2]: cosine, sine
  const RowInfo* info;   // [rows]
  KvCacheView cache;
  int32_t rows, heads, layer;
  float query_scale;                           // softmax scale × log2(e) × what stored keys are to be multiplied by
  bool interleaved;                            // pairs (2i, 2i + 1) instead of (i, i + head_dim / 2)
  bool invariant = false;                      // one kernel, whatever `rows`
  float key_factor = 1.f, value_factor = 1.f;  // on K and V before they are stored as FP8
};
cudaError_t LaunchRopeAppend(const RopeAppendArgs& args, cudaStream_t stream);

cudaError_t LaunchRotaryTable(float2* table, const float* inverse_frequencies, int32_t positions, int32_t half_dim,
                              cudaStream_t stream);
// Converts [n] FP32 or FP16 to BF16.
cudaError_t LaunchToBf16(const void* input, bool fp32, __nv_bfloat16* output, int64_t n, cudaStream_t stream);
// The first n elements of a tensor by its recipe; `table` is the recipe's, in device memory. `output` is aligned to 16
// bytes.
cudaError_t LaunchMakeElements(const TensorRecipe& recipe, const void* table, void* output, int64_t n,
                               cudaStream_t stream);
// Random contents: element i is a function of (seed, i), about normal with the given deviation.
cudaError_t LaunchFillBf16(__nv_bfloat16* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream);
cudaError_t LaunchFillFp8(uint8_t* output, int64_t n, uint64_t seed, float deviation, cudaStream_t stream);
cudaError_t LaunchFillFloat(float* output, int64_t n, uint64_t seed, float low, float high, cudaStream_t stream);

// Reads memory once and does nothing with it (whole pieces of 64 KB): the bandwidth that everything else is held
// against. Multiprocessors take pieces as they can, by the count in `taken`, which is zero before.
cudaError_t LaunchReadMemory(const void* memory, int64_t bytes, uint32_t* taken, int32_t multiprocessors,
                             cudaStream_t stream);

// ---- products of few rows ----
// output[m][n] = input[m][k] × weight[n][k]ᵀ, E4M3 with unit scales, BF16 out. The input has memory for 8 rows when m
// <= 8, else for 32. HasSmallGemm says for which shapes there is a kernel.
inline constexpr int kSmallGemmRows = 32;
struct SmallGemmArgs {
  const uint8_t* weight;
  const uint8_t* input;
  __nv_bfloat16* output;
  int32_t n, k, m;
};
bool HasSmallGemm(int64_t n, int64_t k, int64_t m);
cudaError_t LaunchSmallGemm(const SmallGemmArgs& args, cudaStream_t stream);

// ---- the same sums whatever the batch (--deterministic) ----
// output[m][n] = input[m][k] × weight[n][k]ᵀ, E4M3 with unit scales or BF16 in, BF16 or FP32 out. A row's bits depend
// on that row and the weights only, not on m. Rows of both matrices are multiples of 16 bytes, n is one of 8.
struct InvariantGemmArgs {
  const void* weight;
  const void* input;
  void* output;
  int32_t n, k, m;
  bool fp8, fp32_output;
  int32_t multiprocessors;
};
cudaError_t LaunchInvariantGemm(const InvariantGemmArgs& args, cudaStream_t stream);

// Attention of any rows over the paged cache, for prefill and decode. A row's bits depend on its query, its position
// and the cache: tokens go to warps by their position, and sections of 1024 tokens are merged in order.
inline constexpr int kSectionTokens = 1024;
// Queries of a job: four operands of eight columns, each column a query's head. `group`: heads of a KV head, up to 8.
inline constexpr int kJobOperands = 4;
constexpr int32_t MostJobRows(int32_t group) { return kJobOperands * (8 / group); }
struct AttentionJob {
  int32_t row;            // of the batch, the first
  int32_t rows;           // 1 to MostJobRows, at consecutive positions of one sequence
  int32_t position;       // of the first
  int32_t table_offset;   // of its sequence in the block table
  int32_t first_section;  // of the row's sections, those that this job does
  int32_t sections;
  int32_t part;  // -1: all of them. Else rows is 1, and sections go to the row's parts, which begin here; whoever is
                 // the row's last adds them up
  int32_t reserved;
};
struct InvariantAttentionArgs {
  const __half* query;  // row r at query + r × query_stride: [heads × head_dim], scaled
  KvCacheView cache;    // E4M3 or BF16, head_dim 64 or 128
  const int32_t* block_table;
  const AttentionJob* jobs;
  const int32_t* job_count;
  __nv_bfloat16* output;  // [rows][heads × head_dim]
  float* parts;           // InvariantAttentionPartBytes for each part
  uint32_t* counters;     // [rows that are in parts × kv_heads], zero before and after
  int32_t heads, layer, query_stride, multiprocessors;
};
int64_t InvariantAttentionPartBytes(int32_t kv_heads);
cudaError_t LaunchInvariantAttention(const InvariantAttentionArgs& args, cudaStream_t stream);

// ---- attention ----
// One query row for each sequence, over the paged cache. Work is cut into equal shares of a flat (sequence, head, 16
// tokens) axis, one share a CTA; the last CTA of a (sequence, head) adds the parts up.
// Beginning one costs as much time as kDecodePairUnits × 16 tokens.
inline constexpr int kDecodePairUnits = 28;
constexpr int32_t DecodeUnits(int32_t length) { return length == 0 ? 0 : kDecodePairUnits + (length + 15) / 16; }
struct DecodeAttentionArgs {
  const __half* query;          // row s at query + s × query_stride: [heads × head_dim], scaled
  KvCacheView cache;            // E4M3 or BF16, head_dim 64 or 128
  const int32_t* block_table;   // the tables of all sequences, one after another
  const int32_t* table_offset;  // [sequences]: where each one's begins
  const int32_t* length;        // [sequences] tokens; 0: a row of padding
  const int32_t* unit_prefix;   // [sequences + 1]: running sum of DecodeUnits(length)
  __nv_bfloat16* output;        // [sequences][heads × head_dim]; rows of padding are left alone
  float* partial;               // DecodeAttentionWorkspace bytes, with the counters after it
  uint32_t* counters;           // [sequences × kv_heads], zero before and after
  int32_t sequences, heads, layer, query_stride, multiprocessors;
};
int64_t DecodeAttentionPartialBytes(int32_t multiprocessors);
cudaError_t LaunchDecodeAttention(const DecodeAttentionArgs& args, cudaStream_t stream);

// Prefill attention reads FP16 copies of the cache's K and V in tiles of 128 tokens, laid out as the tensor cores want
// them: tile × kv_head × (K, V) × 128 × head_dim. LaunchGatherKv makes them.
struct GatherTile {
  int32_t block;   // of the cache
  int32_t tile;    // of the scratch
  int32_t tokens;  // valid ones, 1 to 128; the rest become zeros
};
cudaError_t LaunchGatherKv(const KvCacheView& cache, const GatherTile* tiles, int32_t count, int32_t layer,
                           __half* scratch, cudaStream_t stream);

struct QueryTile {
  int32_t row;         // first row of the batch
  int32_t rows;        // 1 to 128
  int32_t position;    // of the first row in its sequence
  int32_t first_tile;  // of its sequence, in the scratch
};
struct PrefillAttentionArgs {
  const __half* query;  // row r at query + r × query_stride, scaled
  const __half* scratch;
  const QueryTile* tiles;  // longest first
  __nv_bfloat16* output;   // [rows][heads × head_dim]
  int32_t tile_count, heads, kv_heads, head_dim, query_stride, multiprocessors;
};
cudaError_t LaunchPrefillAttention(const PrefillAttentionArgs& args, cudaStream_t stream);

// ---- sampling ----
// The rules of backend/sampler.h, eight CTAs a row. Weights are fixed-point numbers, so sums do not depend on their
// order; a token can differ from the CPU's only where a draw or a top-p mass falls within rounding of a boundary, or
// among equal weights at the edge of top-p, which stay here.
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int32_t kMostVocabulary = 400000;  // what the shared memory of eight CTAs holds

struct LogitChange {  // in this order
  int32_t token;
  float bias;        // added; minus infinity masks
  float repetition;  // divides what is positive, multiplies the rest; 1: none
  float penalty;     // subtracted
};
struct SampleRow {
  uint64_t seed, choice, position;  // key of the draw (core/random.h)
  int32_t logits_row;
  int32_t target;             // score this token of the raw logits instead of sampling; -1: sample
  float inverse_temperature;  // 0: greedy
  float top_p;                // 1: off
  float min_p;                // 0: off
  int32_t top_k;              // 0: off
  int32_t top_logprobs;       // -1: none
  int32_t change_begin, change_count;
  int32_t first_result;  // of the step: row i's result is results[first_result + i]
};
struct SampleResult {
  int32_t token;
  float logprob;
  int32_t finite;  // 0: a logit was not a finite number
  int32_t top_count;
  int32_t top_tokens[kMaxTopLogprobs];
  float top_logprobs[kMaxTopLogprobs];
};
struct SampleArgs {
  const float* logits;  // [rows][vocabulary]
  const SampleRow* rows;
  const LogitChange* changes;  // tokens are unique within a row
  SampleResult* results;       // [first_result + count], may be pinned host memory
  int32_t count, vocabulary;
};
cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream);

// ---- tables ----
// A token that stands in results[i] when the step begins, and how to say so in place of the token.
constexpr int32_t TokenOfResult(int32_t i) { return -1 - i; }
constexpr int32_t ResultOfToken(int32_t token) { return -1 - token; }

struct TableCopy {
  const uint4* from;  // pinned host memory
  uint4* to;
  int32_t pieces;  // of 16 bytes
};
struct LoadTablesArgs {
  static constexpr int kMostTables = 11;
  TableCopy tables[kMostTables];
  int32_t table_count;
  const RowInfo* host_rows;  // [row_count], pinned
  RowInfo* rows;             // [row_count]
  int32_t row_count;
  const SampleResult* results;  // of the step before
};
// Waits for the end of everything before it in the stream, and does not let its successor start early.
cudaError_t LaunchLoadTables(const LoadTablesArgs& args, cudaStream_t stream);

}  // namespace baton::cuda
