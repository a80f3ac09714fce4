#include "device/host_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace baton {
namespace {

TEST(HostMemoryTest, WhatOneMappingWritesTheOtherReads) {
  auto memory = HostMemory::Create("test", 1 << 16);
  ASSERT_TRUE(memory.ok());
  auto imported = HostMemory::Import(UniqueFd(dup(memory->fd())), 1 << 16);
  ASSERT_TRUE(imported.ok());
  memory->data()[12345] = 7;
  EXPECT_EQ(imported->data()[12345], 7);
}

TEST(HostMemoryTest, RefusesLessThanPromised) {
  auto memory = HostMemory::Create("test", 4096);
  auto imported = HostMemory::Import(UniqueFd(dup(memory->fd())), 8192);
  EXPECT_EQ(imported.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostMemoryTest, RefusesMemoryThatItsOwnerCouldShrink) {
  UniqueFd fd(memfd_create("unsealed", 0));
  ASSERT_EQ(ftruncate(fd.get(), 4096), 0);
  EXPECT_EQ(HostMemory::Import(std::move(fd), 4096).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HostMemoryTest, TheSizeIsSealed) {
  auto memory = HostMemory::Create("test", 8192);
  EXPECT_NE(ftruncate(memory->fd(), 4096), 0);
}

}  // namespace
}  // namespace baton
