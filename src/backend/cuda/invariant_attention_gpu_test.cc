#include "backend/cuda/attention_test_support.h"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

int Multiprocessors() {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0);
  return count;
}

// Queries of one sequence at some of its positions, a row each.
class InvariantAttentionTest : public testing::TestWithParam<Heads> {
 protected:
  InvariantAttentionTest() : random_(FreshSeed()) {}

  void Make(const std::vector<std::pair<int, int>>& ranges) {  // [from, to)
    for (const auto& [from, to] : ranges) {
      for (int position = from; position < to; ++position) positions_.push_back(position);
    }
    blocks_ = positions_.back() / kBlockTokens + 1;
    const Heads& h = GetParam();
    cache_ = std::make_unique<Cache>(h.kv_heads, h.dim, h.fp8, 2 * blocks_, random_);
    table_ = ShuffledBlocks(2 * blocks_, random_);
    stride_ = (h.heads + 2 * h.kv_heads) * h.dim;
    queries_ = std::make_unique<Queries>(rows(), stride_, random_);
    device_queries_ = std::make_unique<DeviceArray<uint16_t>>(queries_->bits);
  }
  int rows() const { return static_cast<int>(positions_.size()); }

  AttentionJob Job(int row, int count) const {
    const int last = positions_[row] + count - 1;
    return {.row = row, .rows = count, .position = positions_[row], .sections = last / kSectionTokens + 1, .part = -1};
  }
  std::vector<AttentionJob> Alone() const {
    std::vector<AttentionJob> jobs;
    for (int row = 0; row < rows(); ++row) jobs.push_back(Job(row, 1));
    return jobs;
  }
  // Rows in random groups.
  std::vector<AttentionJob> Grouped() {
    std::vector<AttentionJob> jobs;
    for (int row = 0; row < rows();) {
      int count = 1;
      const int wanted = 1 + static_cast<int>(random_.Below(MostJobRows(GetParam().heads / GetParam().kv_heads)));
      while (count < wanted && row + count < rows() && positions_[row + count] == positions_[row] + count) ++count;
      jobs.push_back(Job(row, count));
      row += count;
    }
    return jobs;
  }
  // Each row's sections over several jobs.
  std::vector<AttentionJob> InParts() {
    std::vector<AttentionJob> jobs;
    int part = 0;
    for (int row = 0; row < rows(); ++row) {
      AttentionJob job = Job(row, 1);
      const int sections = job.sections;
      job.part = part;
      part += sections;
      for (int done = 0; done < sections; done += job.sections) {
        job.first_section = done;
        job.sections = 1 + static_cast<int>(random_.Below(sections - done));
        jobs.push_back(job);
      }
    }
    return jobs;
  }

  std::vector<uint16_t> Run(std::vector<AttentionJob> jobs, int multiprocessors) {
    for (size_t i = jobs.size() - 1; i > 0; --i) std::swap(jobs[i], jobs[random_.Below(i + 1)]);
    int parts = 1;
    for (const AttentionJob& job : jobs) parts = std::max(parts, job.part + job.first_section + job.sections + 1);
    const Heads& h = GetParam();
    const DeviceArray<int32_t> table(table_), count(std::vector<int32_t>{static_cast<int32_t>(jobs.size())});
    const DeviceArray<AttentionJob> device_jobs(jobs);
    const DeviceArray<uint32_t> counters(std::vector<uint32_t>(rows() * h.kv_heads, 0));
    const DeviceArray<uint8_t> part_memory(parts * InvariantAttentionPartBytes(h.kv_heads));
    DeviceArray<uint16_t> output(int64_t{rows()} * h.heads * h.dim);
    std::vector<uint16_t> first;
    for (int run = 0; run < 2; ++run) {  // the second finds the counters as the first left them
      output.Poison();
      EXPECT_EQ(LaunchInvariantAttention({.query = device_queries_->as<__half>(),
                                          .cache = cache_->view(),
                                          .block_table = table.get(),
                                          .jobs = device_jobs.get(),
                                          .job_count = count.get(),
                                          .output = output.as<__nv_bfloat16>(),
                                          .parts = part_memory.as<float>(),
                                          .counters = counters.get(),
                                          .heads = h.heads,
                                          .layer = kLayer,
                                          .query_stride = stride_,
                                          .multiprocessors = multiprocessors},
                                         nullptr),
                cudaSuccess);
      const auto out = output.Download();
      if (run == 1) EXPECT_EQ(out, first);
      first = out;
    }
    return first;
  }
  void CheckAgainstDouble(const std::vector<uint16_t>& out, int every) {
    const Heads& h = GetParam();
    RelativeError error;
    for (int row = 0; row < rows(); row += every) {
      for (int head = 0; head < h.heads; head += std::max(1, h.heads / 8)) {
        const auto reference = Reference(*cache_, table_.data(), positions_[row] + 1, head / (h.heads / h.kv_heads),
                                         queries_->values.data() + int64_t{row} * stride_ + head * h.dim);
        for (int d = 0; d < h.dim; ++d) {
          error.Add(Bf16ToFloat(out[(int64_t{row} * h.heads + head) * h.dim + d]), reference[d]);
        }
      }
    }
    EXPECT_LT(error.value(), 4e-3);
  }
  // The sequence's blocks elsewhere, and every byte that is not the sequence's a NaN.
  void MoveToOtherBlocks() {
    const std::vector<uint8_t> before = cache_->host();
    std::vector<uint8_t>& after = cache_->host();
    std::fill(after.begin(), after.end(), 0xff);
    const Heads& h = GetParam();
    const int64_t row = h.dim * (h.fp8 ? 1 : 2);
    const int64_t plane = kBlockTokens * row;
    const int64_t block_bytes = int64_t{h.kv_heads} * kLayers * 2 * plane;
    for (int i = 0; i < blocks_; ++i) {
      const int from = table_[i];
      const int to = table_[i] = table_[blocks_ + i];
      const int tokens = std::min(kBlockTokens, positions_.back() + 1 - i * kBlockTokens);
      for (int64_t at = 0; at < block_bytes; at += plane) {
        std::copy_n(before.begin() + from * block_bytes + at, tokens * row, after.begin() + to * block_bytes + at);
      }
    }
    cache_->device().Upload(after);
  }
  void ExpectSame(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, const char* what) {
    const int64_t width = int64_t{GetParam().heads} * GetParam().dim;
    for (int row = 0; row < rows(); ++row) {
      ASSERT_EQ(std::memcmp(a.data() + row * width, b.data() + row * width, width * 2), 0)
          << what << " changes the row at position " << positions_[row];
    }
  }

  Random random_;
  std::vector<int> positions_;
  int blocks_ = 0;
  int stride_ = 0;
  std::unique_ptr<Cache> cache_;
  std::vector<int32_t> table_;
  std::unique_ptr<Queries> queries_;
  std::unique_ptr<DeviceArray<uint16_t>> device_queries_;
};

TEST_P(InvariantAttentionTest, OneCtaGivesWhatManyGive) {  // small enough for racecheck
  Make({{0, 5}, {126, 130}, {1023, 1026}});
  const auto alone = Run(Alone(), 2 * rows());
  CheckAgainstDouble(alone, 1);
  ExpectSame(alone, Run(Grouped(), 1), "a group");
  ExpectSame(alone, Run(InParts(), 1), "sharing out");
}

TEST_P(InvariantAttentionTest, AnyBatchGivesTheSameBits) {
  Make({{0, 70}, {100, 261}, {1000, 1060}, {2040, 2055}, {2590, 2600}, {4000, 4033}});
  const auto alone = Run(Alone(), Multiprocessors());
  CheckAgainstDouble(alone, 17);
  for (const int multiprocessors : {1, 7, Multiprocessors(), 200}) {
    ExpectSame(alone, Run(Grouped(), multiprocessors), "a group");
    ExpectSame(alone, Run(InParts(), multiprocessors), "sharing out");
  }
  MoveToOtherBlocks();
  ExpectSame(alone, Run(Grouped(), Multiprocessors()), "another block");
  ExpectSame(alone, Run(InParts(), Multiprocessors()), "another block, sharing out");
}

INSTANTIATE_TEST_SUITE_P(Shapes, InvariantAttentionTest,
                         testing::Values(Heads{64, 8, 128, true}, Heads{32, 8, 128, true}, Heads{9, 3, 64, true},
                                         Heads{32, 8, 128, false}, Heads{9, 3, 64, false}, Heads{4, 4, 128, true},
                                         Heads{14, 2, 64, true}));

}  // namespace
}  // namespace baton::cuda
