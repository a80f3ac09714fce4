#include "transfer/path_probe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace baton {
namespace {

struct Path {
  explicit Path(std::unique_ptr<Transport> with) : transport(std::move(with)) {
    exported = *transport->Export({target.data(), static_cast<int64_t>(target.size())});
    remote = *transport->Import(exported.descriptor, UniqueFd());
  }
  std::vector<uint8_t> target = std::vector<uint8_t>(4 << 20);
  std::unique_ptr<Transport> transport;
  ExportedMemory exported;
  std::unique_ptr<RemoteMemory> remote;
};

TEST(PathProbeTest, MeasuresAndLeavesTheBytesOfTheMessage) {
  Path path(MakeLocalTransport());
  std::vector<uint8_t> source(1 << 20);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 7);
  const auto report = ProbePath(*path.transport, *path.remote, {{source.data(), 4096, 1 << 20}}, Epoch{1});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->gigabytes_per_second, 0.01);
  EXPECT_GE(report->latency_us, 0);
  EXPECT_EQ(report->Text().substr(0, 6), "local ");
  EXPECT_EQ(report->below_floor, report->gigabytes_per_second < 2);
  EXPECT_TRUE(std::equal(source.begin(), source.end(), path.target.begin() + 4096));
  EXPECT_EQ(path.target[4095], 0);
}

TEST(PathProbeTest, APathBelowItsFloorSaysSo) {
  Path path(MakeThrottledTransport(MakeLocalTransport(), {.bytes_per_second = 50e6, .delay_us = 2000}));
  const std::vector<uint8_t> source(1 << 20, 1);
  const auto report = ProbePath(*path.transport, *path.remote, {{source.data(), 0, 1 << 20}}, Epoch{1}, {.repeats = 3});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LT(report->gigabytes_per_second, 0.05);
  EXPECT_GT(report->latency_us, 1900);
  EXPECT_TRUE(report->below_floor);
  EXPECT_NE(report->advice.find("below the floor of 2 GB/s for local: the path is throttled on purpose"),
            std::string::npos)
      << report->advice;
}

TEST(PathProbeTest, WritesNoMoreThanItsBound) {
  Path path(MakeLocalTransport());
  const std::vector<uint8_t> source(2 << 20, 1);
  const std::vector<CopyRange> ranges = {{source.data(), 0, 1 << 20}, {source.data(), 1 << 20, 1 << 20}};
  ASSERT_TRUE(ProbePath(*path.transport, *path.remote, ranges, Epoch{1}, {.max_bytes = (1 << 20) + 10}).ok());
  const auto written = std::count(path.target.begin(), path.target.end(), 1);  // less where the first look was slow
  EXPECT_GT(written, 0);
  EXPECT_LE(written, (1 << 20) + 10);
}

TEST(PathProbeTest, GivesUpOnAPathThatDoesNotMove) {
  const std::vector<uint8_t> source(4 << 20, 1);  // outlives the path
  Path path(MakeThrottledTransport(MakeLocalTransport(), {.bytes_per_second = 1e6}));
  const auto report =
      ProbePath(*path.transport, *path.remote, {{source.data(), 0, 4 << 20}}, Epoch{1}, {.timeout_ms = 50});
  EXPECT_TRUE(absl::IsDeadlineExceeded(report.status())) << report.status();
}

TEST(PathProbeTest, RefusesWhatCannotBeMeasured) {
  Path path(MakeLocalTransport());
  const uint8_t byte = 1;
  EXPECT_EQ(ProbePath(*path.transport, *path.remote, {}, Epoch{1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ProbePath(*path.transport, *path.remote, {{&byte, 4 << 20, 1}}, Epoch{1}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PathProbeTest, NamesSlowPathsWithEnoughDigits) {
  EXPECT_EQ((PathReport{.transport = "shm", .gigabytes_per_second = 9.84}.Text()), "shm 9.8 GB/s");
  EXPECT_EQ((PathReport{.transport = "tcp", .gigabytes_per_second = 0.0312}.Text()), "tcp 0.031 GB/s");
  EXPECT_EQ((PathReport{.transport = "nvlink", .gigabytes_per_second = 412.2}.Text()), "nvlink 412.2 GB/s");
}

}  // namespace
}  // namespace baton
