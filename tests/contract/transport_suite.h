// What every Transport promises (transfer/transport.h) within one process. A program that includes this instantiates
// TransportContractTest over its implementations.
#pragma once

#include <atomic>
#include <filesystem>
#include <fstream>

#include "base/mutex.h"
#include "transport_contract.h"

namespace baton {
namespace {

int CountFds() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Counts callbacks, and keeps what they said.
class Results {
 public:
  TransferDone Next() {
    return [this, index = posted_++](const TransferResult& result) {
      MutexLock lock(mutex_);
      order_.push_back(index);
      results_.push_back(result);
    };
  }
  int posted() const { return posted_; }
  std::vector<int> order() {
    MutexLock lock(mutex_);
    return order_;
  }
  std::vector<TransferResult> results() {
    MutexLock lock(mutex_);
    return results_;
  }

 private:
  std::atomic<int> posted_ = 0;
  Mutex mutex_;
  std::vector<int> order_ BATON_GUARDED_BY(mutex_);
  std::vector<TransferResult> results_ BATON_GUARDED_BY(mutex_);
};

TEST_P(TransportContractTest, OverlappingPostsLeaveWhatTheirOrderSays) {
  auto remote = Import();
  ASSERT_EQ(remote->bytes(), kBytes);
  const std::vector<uint8_t> contents = RandomBytes(kBytes, 1);
  const auto source = Source(contents);
  std::vector<uint8_t> expected(kBytes, 0);
  std::mt19937 random(2);
  Results results;
  for (int i = 0; i < 60; ++i) {
    std::vector<CopyRange> ranges(random() % 5);
    // Those of one post lie in shares of their own.
    const int64_t share = kBytes / std::max<int64_t>(1, ranges.size());
    for (size_t j = 0; j < ranges.size(); ++j) {
      CopyRange& range = ranges[j];
      const int64_t limits[] = {1, 100, 70'000, 3 << 20};
      range.bytes = std::min<int64_t>(random() % limits[random() % 4], share);
      range.to_offset = static_cast<int64_t>(j) * share + random() % (share - range.bytes + 1);
      const int64_t from = random() % (kBytes - range.bytes + 1);
      range.from = source->data() + from;
      std::memcpy(expected.data() + range.to_offset, contents.data() + from, range.bytes);
    }
    ASSERT_TRUE(remote->Post(ranges, Epoch{7}, results.Next()).ok());
  }
  remote->Flush();
  EXPECT_EQ(results.results().size(), 60u);
  EXPECT_TRUE(memory_->Read(0, kBytes) == expected);
}

TEST_P(TransportContractTest, RangesOutOfBoundsAreRefusedBeforeAnyByteMoves) {
  auto remote = Import();
  Poison();
  const auto source = SourceOf(kBytes, 1);
  constexpr int64_t kMax = INT64_MAX;
  for (const CopyRange& bad :
       {CopyRange{source->data(), kBytes, 1}, CopyRange{source->data(), kBytes - 1, 2},
        CopyRange{source->data(), -1, 1}, CopyRange{source->data(), 0, -1}, CopyRange{source->data(), kMax, 1},
        CopyRange{source->data(), 1, kMax}, CopyRange{source->data(), kMax, kMax},
        CopyRange{source->data(), 0, kBytes + 1}, CopyRange{nullptr, 0, 1}}) {
    bool called = false;
    const absl::Status status =
        remote->Post({{source->data(), 0, 100}, bad}, Epoch{1}, [&called](const TransferResult&) { called = true; });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.to_offset << " " << bad.bytes;
    remote->Flush();
    EXPECT_FALSE(called);
  }
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
  ASSERT_TRUE(remote->Post({{source->data(), kBytes, 0}, {source->data(), kBytes - 1, 1}}, Epoch{1}, nullptr).ok());
  remote->Flush();
  EXPECT_EQ(FirstChange(0, kBytes), kBytes - 1);
}

TEST_P(TransportContractTest, CallbacksOfOneTagComeInOrderAndSayWhatWasWritten) {
  auto remote = Import();
  const auto source = SourceOf(3 << 20, 1);
  Results results;
  for (int i = 0; i < 20; ++i) {
    const int64_t bytes = i % 4 == 3 ? 0 : (i % 2 == 0 ? 3 << 20 : 10);
    std::vector<CopyRange> ranges;
    if (bytes > 0) ranges = {{source->data(), 0, bytes}, {source->data(), bytes + 100, 5}};
    ASSERT_TRUE(remote->Post(std::move(ranges), Epoch{1}, results.Next()).ok());
  }
  remote->Flush();
  const std::vector<TransferResult> all = results.results();
  ASSERT_EQ(all.size(), 20u);
  int64_t total = 0;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(results.order()[i], i);
    EXPECT_TRUE(all[i].status.ok());
    EXPECT_EQ(all[i].bytes, i % 4 == 3 ? 0 : (i % 2 == 0 ? (3 << 20) + 5 : 15)) << i;
    total += all[i].bytes;
  }
  EXPECT_EQ(remote->stats().bytes, total);
  EXPECT_EQ(remote->stats().posts, 20);
  EXPECT_EQ(remote->stats().cancelled, 0);
  EXPECT_GT(remote->stats().copy_us, 0);
}

TEST_P(TransportContractTest, AfterACancelHasEndedNoByteOfItsTagIsWritten) {
  auto remote = Import();
  const auto source = SourceOf(kBytes, 1);
  // Each post that ends is followed by another, so that the cancel finds some whenever it comes.
  std::atomic<int> written = 0, cut_off = 0;
  std::atomic<bool> stop = false;
  std::function<void(const TransferResult&)> again = [&](const TransferResult& result) {
    if (absl::IsCancelled(result.status)) {
      EXPECT_LT(result.bytes, kBytes);
      ++cut_off;
      return;
    }
    EXPECT_EQ(result.bytes, kBytes);
    ++written;
    if (!stop) EXPECT_TRUE(remote->Post({{source->data(), 0, kBytes}}, Epoch{1}, again).ok());
  };
  constexpr int kPosts = 4;
  for (int i = 0; i < kPosts; ++i) ASSERT_TRUE(remote->Post({{source->data(), 0, kBytes}}, Epoch{1}, again).ok());
  ASSERT_TRUE(WaitUntil([&written] { return written > 0; }));
  stop = true;
  std::atomic<int> callbacks_before = 0;
  std::atomic<bool> cancelled = false;
  remote->Cancel(Epoch{1}, [&] {
    callbacks_before = cut_off.load();
    cancelled = true;
  });
  ASSERT_TRUE(WaitUntil([&cancelled] { return cancelled.load(); }));
  Poison();
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
  EXPECT_GE(cut_off, kPosts - 1);  // one may just have ended
  EXPECT_EQ(callbacks_before, cut_off);
  EXPECT_EQ(remote->stats().cancelled, cut_off);
  // The tag can be used again.
  ASSERT_TRUE(remote->Post({{source->data(), 5, 1}}, Epoch{1}, nullptr).ok());
  remote->Flush();
  EXPECT_EQ(FirstChange(0, kBytes), 5);
}

TEST_P(TransportContractTest, ACancelLeavesOtherTagsAlone) {
  auto remote = Import();
  auto other = Import();
  const std::vector<uint8_t> contents = RandomBytes(kBytes, 3);
  const auto source = Source(contents);
  Results cancelled, kept;
  constexpr int64_t kHalf = kBytes / 2;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(remote->Post({{source->data(), 0, kHalf}}, Epoch{1}, cancelled.Next()).ok());
    ASSERT_TRUE(remote->Post({{source->data() + kHalf, kHalf, kHalf / 2}}, Epoch{2}, kept.Next()).ok());
    ASSERT_TRUE(
        other->Post({{source->data() + kHalf + kHalf / 2, kHalf + kHalf / 2, kHalf / 2}}, Epoch{1}, kept.Next()).ok());
  }
  remote->Cancel(Epoch{1}, nullptr);
  remote->Flush();
  other->Flush();
  EXPECT_EQ(cancelled.results().size(), 10u);
  ASSERT_EQ(kept.results().size(), 20u);
  for (const TransferResult& result : kept.results()) EXPECT_TRUE(result.status.ok());
  EXPECT_TRUE(std::equal(contents.begin() + kHalf, contents.end(), memory_->Read(kHalf, kBytes).begin()));
}

TEST_P(TransportContractTest, ADestroyedRemoteMemoryIsNeverWrittenAgain) {
  auto remote = Import();
  const auto source = SourceOf(kBytes, 1);
  Results results;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(remote->Post({{source->data(), 0, kBytes}}, Epoch{1}, results.Next()).ok());
  }
  transport_.reset();  // an import outlives its transport
  remote.reset();
  EXPECT_EQ(results.results().size(), 20u);
  Poison();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(FirstChange(0, kBytes), kBytes);
}

TEST_P(TransportContractTest, ACallbackMayDestroyTheRemoteMemoryAndTheTransport) {
  std::shared_ptr<RemoteMemory> remote = Import();
  const auto source = SourceOf(1000, 1);
  std::atomic<int> calls = 0;
  std::atomic<bool> gone = false;
  std::shared_ptr<void> last(nullptr, [&gone](void*) { gone = true; });
  std::atomic<bool> go = false;
  RemoteMemory& raw = *remote;
  ASSERT_TRUE(raw.Post({{source->data(), 0, 1000}}, Epoch{1},
                       [&, remote, last,
                        transport = std::shared_ptr<Transport>(std::move(transport_))](const TransferResult&) mutable {
                         while (!go) std::this_thread::yield();
                         transport.reset();
                         remote.reset();  // the last: cancels the second post
                         EXPECT_EQ(calls, 1);
                         ++calls;
                       })
                  .ok());
  ASSERT_TRUE(raw.Post({{source->data(), 0, 1000}}, Epoch{1},
                       [&](const TransferResult& result) {
                         EXPECT_TRUE(absl::IsCancelled(result.status));
                         ++calls;
                       })
                  .ok());
  remote.reset();
  last.reset();
  go = true;
  ASSERT_TRUE(WaitUntil([&] { return gone.load(); }));
  EXPECT_EQ(calls, 2);
  std::this_thread::sleep_for(milliseconds(5));  // the orphaned thread ends
}

TEST_P(TransportContractTest, ThreadsPostAtTheSameTime) {
  auto remote = Import();
  constexpr int kThreads = 4, kPosts = 50;
  constexpr int64_t kShare = kBytes / kThreads;
  const std::vector<uint8_t> contents = RandomBytes(kBytes, 4);
  const auto source = Source(contents);
  std::vector<uint8_t> expected(kBytes, 0);
  Results results;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < kPosts; ++i) {
        const int64_t bytes = random() % (kShare / 20);
        const int64_t offset = t * kShare + random() % (kShare - bytes);
        const int64_t from = random() % (kBytes - bytes);
        std::memcpy(expected.data() + offset, contents.data() + from, bytes);
        EXPECT_TRUE(
            remote->Post({{source->data() + from, offset, bytes}}, Epoch{static_cast<uint64_t>(t)}, results.Next())
                .ok());
        if (i % 10 == 9) remote->Flush();
        if (i % 10 == 4) remote->Cancel(Epoch{1000}, nullptr);  // nobody's
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  remote->Flush();
  EXPECT_EQ(results.results().size(), static_cast<size_t>(kThreads * kPosts));
  EXPECT_TRUE(memory_->Read(0, kBytes) == expected);
}

TEST_P(TransportContractTest, CallbacksMayPostAndCancel) {
  auto remote = Import();
  const auto source = SourceOf(100, 9);
  std::atomic<int> left = 20;
  std::function<void(const TransferResult&)> again = [&](const TransferResult&) {
    remote->Cancel(Epoch{5}, nullptr);
    const int next = --left;
    if (next > 0) EXPECT_TRUE(remote->Post({{source->data(), next * 100, 100}}, Epoch{1}, again).ok());
  };
  ASSERT_TRUE(remote->Post({{source->data(), 0, 100}}, Epoch{1}, again).ok());
  ASSERT_TRUE(WaitUntil([&left] { return left == 0; }));
  remote->Flush();
  EXPECT_EQ(memory_->Byte(1999), 9);
}

TEST_P(TransportContractTest, DescriptorsThatDoNotFitAreRefused) {
  const std::string good = exported_.descriptor;
  std::string tampered = good;
  for (char& byte : tampered) byte = static_cast<char>(byte ^ 0x5a);
  std::string other_numbers = good;
  for (size_t i = 8; i < other_numbers.size(); ++i) other_numbers[i] = static_cast<char>(0x7f);
  for (const std::string& bad : {std::string(), std::string("x"), good.substr(1), good.substr(0, good.size() - 1),
                                 good + "x", tampered, other_numbers, std::string(1000, '\0')}) {
    exported_.descriptor = bad;
    const absl::StatusOr<std::unique_ptr<RemoteMemory>> remote = ImportFrom(*transport_);
    ASSERT_FALSE(remote.ok());
    EXPECT_EQ(remote.status().code(), absl::StatusCode::kInvalidArgument) << remote.status();
  }
  if (!transport_->capabilities().needs_fd) return;
  EXPECT_EQ(transport_->Import(good, UniqueFd()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(transport_->Export({memory_->local().base, kBytes, -1}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(TransportContractTest, NothingIsLeftBehind) {
  const auto source = SourceOf(1, 1);
  const auto write_one = [&](int at) {
    auto remote = Import();
    ASSERT_TRUE(remote->Post({{source->data(), at, 1}}, Epoch{1}, nullptr).ok());
    remote->Flush();
  };
  write_one(0);  // what a device opens for its first copy stays
  const int before = CountFds();
  for (int i = 0; i < 10; ++i) {
    write_one(i);
    // No mapping has a name that could stay in a file system.
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) EXPECT_EQ(line.find("/dev/shm/"), line.npos) << line;
  }
  EXPECT_EQ(CountFds(), before);
}

}  // namespace
}  // namespace baton
