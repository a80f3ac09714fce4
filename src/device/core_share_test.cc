#include "device/core_share.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace baton {
namespace {

TEST(CoreShare, WorkersThatComputeShareTheCores) {
  const std::string path = testing::TempDir() + "/cores." + std::to_string(getpid());
  auto first = CoreShare::Open(path, 0, 8);
  auto second = CoreShare::Open(path, 1, 8);
  auto last = CoreShare::Open(path, CoreShare::kMaxWorkers - 1, 8);
  ASSERT_TRUE(first.ok() && second.ok() && last.ok());
  const int64_t now = CoreShare::Now();
  EXPECT_EQ((*first)->CoresAt(now), 8);  // alone
  EXPECT_EQ((*first)->CoresAt(now + 1), 8);
  EXPECT_EQ((*second)->CoresAt(now + 2), 4);
  EXPECT_EQ((*first)->CoresAt(now + 3), 4);
  EXPECT_EQ((*last)->CoresAt(now + 4), 2);  // rounded down: cores are not shared by halves
  // The second stops, or dies: after a while its cores are the others'.
  EXPECT_EQ((*last)->CoresAt(now + 2 + CoreShare::kRestNs), 4);
  EXPECT_EQ((*first)->CoresAt(now + 1 + 3 * CoreShare::kRestNs), 8);
  std::filesystem::remove(path);
}

TEST(CoreShare, NobodyIsLeftWithoutACore) {
  const std::string path = testing::TempDir() + "/cores." + std::to_string(getpid());
  const int64_t now = CoreShare::Now();
  for (int i = 0; i < 5; ++i) EXPECT_EQ((*CoreShare::Open(path, i, 2))->CoresAt(now), i == 0 ? 2 : 1);
  EXPECT_EQ(CoreShare::Open(path, CoreShare::kMaxWorkers, 2).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(CoreShare::Open("/nowhere/cores", 0, 2).ok());
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace baton
