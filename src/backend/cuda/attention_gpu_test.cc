#include <algorithm>
#include <utility>

#include "backend/cuda/attention_test_support.h"
#include "backend/cuda/kernels.h"
#include "device/cuda_device.h"

namespace baton::cuda {
namespace {

class AttentionTest : public testing::TestWithParam<Heads> {};

// `processors`: how many CTAs share the work; 0: as many as the device has.
void CheckDecode(const Heads& heads, const std::vector<int32_t>& lengths, Random& random, int processors = 0) {
  const int sequences = static_cast<int>(lengths.size());
  std::vector<int32_t> offsets, prefix = {0};
  int blocks = 0;
  for (int length : lengths) {
    offsets.push_back(blocks);
    blocks += (length + 127) / 128;
    prefix.push_back(prefix.back() + DecodeUnits(length));
  }
  Cache cache(heads.kv_heads, heads.dim, heads.fp8, blocks, random);
  const auto table = ShuffledBlocks(blocks, random);
  const int stride = (heads.heads + 2 * heads.kv_heads) * heads.dim;
  const Queries queries(sequences, stride, random);
  const DeviceArray<uint16_t> query(queries.bits);
  const DeviceArray<int32_t> device_table(table), device_offsets(offsets), device_lengths(lengths),
      device_prefix(prefix);
  DeviceArray<uint16_t> output(int64_t{sequences} * heads.heads * heads.dim);
  if (processors == 0) cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
  DeviceArray<uint8_t> partial(DecodeAttentionPartialBytes(processors));
  DeviceArray<uint32_t> counters(std::vector<uint32_t>(sequences * heads.kv_heads, 0));
  for (int run = 0; run < 2; ++run) {  // the second finds the counters as the first left them
    output.Poison();
    ASSERT_EQ(LaunchDecodeAttention({.query = query.as<__half>(),
                                     .cache = cache.view(),
                                     .block_table = device_table.get(),
                                     .table_offset = device_offsets.get(),
                                     .length = device_lengths.get(),
                                     .unit_prefix = device_prefix.get(),
                                     .output = output.as<__nv_bfloat16>(),
                                     .partial = partial.as<float>(),
                                     .counters = counters.get(),
                                     .sequences = sequences,
                                     .heads = heads.heads,
                                     .layer = kLayer,
                                     .query_stride = stride,
                                     .multiprocessors = processors},
                                    nullptr),
              cudaSuccess);
    const auto out = output.Download();
    RelativeError error;
    for (int s = 0; s < sequences; ++s) {
      for (int head = 0; head < heads.heads; head += std::max(1, heads.heads / 8)) {
        if (lengths[s] == 0) continue;
        const auto reference =
            Reference(cache, table.data() + offsets[s], lengths[s], head / (heads.heads / heads.kv_heads),
                      queries.values.data() + int64_t{s} * stride + head * heads.dim);
        for (int d = 0; d < heads.dim; ++d) {
          error.Add(Bf16ToFloat(out[(int64_t{s} * heads.heads + head) * heads.dim + d]), reference[d]);
        }
      }
    }
    EXPECT_LT(error.value(), 4e-3) << sequences << " sequences";
  }
}

TEST_P(AttentionTest, DecodeOfMixedLengths) {
  Random random(FreshSeed());
  CheckDecode(GetParam(), {1, 7, 16, 17, 128, 129, 3000, 5, 255, 1023, 0, 300, 64, 2, 777, 15, 0}, random);
}
TEST_P(AttentionTest, DecodeOfOneShortSequence) {
  Random random(FreshSeed());
  CheckDecode(GetParam(), {5}, random);
  CheckDecode(GetParam(), {200, 0, 0, 0}, random);
}
// The ring is refilled many times; small enough for racecheck.
TEST_P(AttentionTest, DecodeByOneCta) {
  Random random(FreshSeed());
  CheckDecode(GetParam(), {700, 90}, random, 1);
}
TEST_P(AttentionTest, DecodeOfRandomLengths) {
  Random random(FreshSeed());
  std::vector<int32_t> lengths;
  for (int i = 0; i < 24; ++i) lengths.push_back(static_cast<int32_t>(random.Below(900)));
  CheckDecode(GetParam(), lengths, random);
}

TEST_P(AttentionTest, PrefillOfSeveralSequences) {
  const Heads heads = GetParam();
  Random random(FreshSeed());
  struct Item {
    int start, count;
  };
  const std::vector<Item> items = {{0, 300}, {0, 1}, {77, 130}, {1000, 129}, {128, 128}, {0, 17}};
  std::vector<GatherTile> gather;
  std::vector<QueryTile> tiles;
  int rows = 0;
  int blocks = 0;
  for (const Item& item : items) blocks += (item.start + item.count + 127) / 128;
  Cache cache(heads.kv_heads, heads.dim, heads.fp8, blocks, random);
  const auto table = ShuffledBlocks(blocks, random);
  std::vector<int> first_row, first_tile;
  int tile = 0;
  for (const Item& item : items) {
    first_row.push_back(rows);
    first_tile.push_back(tile);
    const int end = item.start + item.count;
    for (int done = 0; done < item.count; done += 128) {
      tiles.push_back({rows + done, std::min(128, item.count - done), item.start + done, tile});
    }
    for (int at = 0; at < end; at += 128) {
      gather.push_back({table[tile], tile, std::min(128, end - at)});
      ++tile;
    }
    rows += item.count;
  }
  const int stride = (heads.heads + 2 * heads.kv_heads) * heads.dim;
  const Queries queries(rows, stride, random);
  const DeviceArray<uint16_t> query(queries.bits);
  const DeviceArray<GatherTile> device_gather(gather);
  const DeviceArray<QueryTile> device_tiles(tiles);
  DeviceArray<uint16_t> scratch(int64_t{tile} * heads.kv_heads * 2 * 128 * heads.dim);
  DeviceArray<uint16_t> output(int64_t{rows} * heads.heads * heads.dim);
  ASSERT_EQ(LaunchGatherKv(cache.view(), device_gather.get(), tile, kLayer, scratch.as<__half>(), nullptr),
            cudaSuccess);
  ASSERT_EQ(LaunchPrefillAttention({.query = query.as<__half>(),
                                    .scratch = scratch.as<__half>(),
                                    .tiles = device_tiles.get(),
                                    .output = output.as<__nv_bfloat16>(),
                                    .tile_count = static_cast<int32_t>(tiles.size()),
                                    .heads = heads.heads,
                                    .kv_heads = heads.kv_heads,
                                    .head_dim = heads.dim,
                                    .query_stride = stride,
                                    .multiprocessors = 7},  // several items for each CTA
                                   nullptr),
            cudaSuccess);
  const auto out = output.Download();
  for (uint16_t x : out) ASSERT_NE(x, 0xffff);  // everything is written
  RelativeError error;
  for (size_t i = 0; i < items.size(); ++i) {
    for (int q = 0; q < items[i].count; q += q < 4 ? 1 : 13) {
      const int head = static_cast<int>(random.Below(heads.heads));
      const int row = first_row[i] + q;
      const auto reference =
          Reference(cache, table.data() + first_tile[i], items[i].start + q + 1, head / (heads.heads / heads.kv_heads),
                    queries.values.data() + int64_t{row} * stride + head * heads.dim);
      for (int d = 0; d < heads.dim; ++d) {
        error.Add(Bf16ToFloat(out[(int64_t{row} * heads.heads + head) * heads.dim + d]), reference[d]);
      }
    }
  }
  EXPECT_LT(error.value(), 4e-3);
}

TEST_P(AttentionTest, RotatesAndAppends) {
  const Heads heads = GetParam();
  // Of many rows (above 64), a thread rotates several heads.
  const std::pair<int, bool> cases[] = {{37, false}, {37, true}, {150, false}, {150, true}};
  for (const auto& [rows, interleaved] : cases) {
    Random random(FreshSeed());
    constexpr int kPositions = 700;
    const int all = heads.heads + 2 * heads.kv_heads;
    const int width = all * heads.dim;
    Cache cache(heads.kv_heads, heads.dim, heads.fp8, rows, random);
    const auto table = ShuffledBlocks(rows, random);
    std::vector<RowInfo> info;
    for (int row = 0; row < rows; ++row) {
      info.push_back({0, row == 5 ? -1 : static_cast<int32_t>(random.Below(kPositions)), table[row]});
    }
    const auto qkv = random.Bf16(int64_t{rows} * width, 100.0f);
    const auto token = random.Floats(rows, 0.005f, 0.02f);
    const ChannelScales channels(random.Floats(width, 0.5f, 1.5f));
    const std::vector<float>& channel = channels.values;
    const auto bias = random.Floats(width, -1.0f, 1.0f);
    std::vector<float> frequencies;
    for (int i = 0; i < heads.dim / 2; ++i) frequencies.push_back(std::pow(10000.0f, -2.0f * i / heads.dim));
    DeviceArray<uint16_t> device_qkv(qkv);
    const DeviceArray<float> device_token(token), device_bias(bias), device_frequencies(frequencies);
    const DeviceArray<RowInfo> device_info(info);
    DeviceArray<float2> rotary(kPositions * heads.dim / 2);
    ASSERT_EQ(LaunchRotaryTable(rotary.get(), device_frequencies.get(), kPositions, heads.dim / 2, nullptr),
              cudaSuccess);
    ASSERT_EQ(LaunchRopeAppend({.qkv = device_qkv.as<__nv_bfloat16>(),
                                .scales = {device_token.get(), channels.device.as<__half>(), ChannelScales::kUnit,
                                           device_bias.get()},
                                .rotary = rotary.get(),
                                .info = device_info.get(),
                                .cache = cache.view(),
                                .rows = rows,
                                .heads = heads.heads,
                                .layer = kLayer,
                                .query_scale = 0.25f,
                                .interleaved = interleaved,
                                .key_factor = 3.0f,
                                .value_factor = 200.0f},
                               nullptr),
              cudaSuccess);
    const auto out = device_qkv.Download();
    cache.ReadBack();
    RelativeError query_error, cache_error;
    for (int row = 0; row < rows; ++row) {
      if (info[row].position < 0) continue;
      for (int head = 0; head < all; ++head) {
        std::vector<double> x(heads.dim);
        for (int d = 0; d < heads.dim; ++d) {
          const int64_t at = int64_t{row} * width + head * heads.dim + d;
          x[d] = Bf16ToFloat(qkv[at]) * double{token[row]} * channel[head * heads.dim + d] + bias[head * heads.dim + d];
        }
        if (head < heads.heads + heads.kv_heads) {
          for (int i = 0; i < heads.dim / 2; ++i) {
            const double angle = double{frequencies[i]} * info[row].position;
            double& a = x[interleaved ? 2 * i : i];
            double& b = x[interleaved ? 2 * i + 1 : i + heads.dim / 2];
            const double rotated = a * std::cos(angle) - b * std::sin(angle);
            b = b * std::cos(angle) + a * std::sin(angle);
            a = rotated;
          }
        }
        for (int d = 0; d < heads.dim; ++d) {
          if (head < heads.heads) {
            query_error.Add(HalfToFloat(out[int64_t{row} * width + head * heads.dim + d]), x[d] * 0.25);
            continue;
          }
          const int plane = head >= heads.heads + heads.kv_heads;
          const float stored =
              cache.At(info[row].block, (head - heads.heads) % heads.kv_heads, plane, info[row].position % 128, d);
          const double factor = plane == 0 ? 3 : 200;  // some values saturate
          const float rounded = heads.fp8 ? Fp8ToFloat(FloatToFp8(static_cast<float>(x[d] * factor)))
                                          : Bf16ToFloat(FloatToBf16(static_cast<float>(x[d])));
          cache_error.Add(stored, rounded);
        }
      }
    }
    EXPECT_LT(query_error.value(), 5e-4);
    EXPECT_LT(cache_error.value(), 2e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, AttentionTest,
                         testing::Values(Heads{64, 8, 128, true}, Heads{32, 8, 128, false}, Heads{9, 3, 64, true},
                                         Heads{9, 3, 64, false}, Heads{8, 1, 128, true}, Heads{4, 4, 64, true}));

}  // namespace
}  // namespace baton::cuda
