#include "core/step_record.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace baton {
namespace {

TEST(StepRecordTest, WhatOneSideWritesTheOtherReads) {
  auto supervisor = *StepRecord::Create(2);
  auto child = *StepRecord::Map(UniqueFd(dup(supervisor->fd())), 2);
  EXPECT_TRUE(supervisor->Read(0)->empty());
  const std::vector<uint64_t> names{7, 8, 9};
  child->Set(1, names);
  EXPECT_TRUE(supervisor->Read(0)->empty());
  EXPECT_EQ(*supervisor->Read(1), names);
  child->Set(1, {});
  EXPECT_TRUE(supervisor->Read(1)->empty());
}

TEST(StepRecordTest, AStepThatIsTooLargeIsUnknown) {
  auto record = *StepRecord::Create(1);
  record->Set(0, std::vector<uint64_t>(StepRecord::kRequestsMax, 5));
  EXPECT_EQ(record->Read(0)->size(), StepRecord::kRequestsMax);
  record->Set(0, std::vector<uint64_t>(StepRecord::kRequestsMax + 1, 5));
  EXPECT_FALSE(record->Read(0).has_value());
}

TEST(StepRecordTest, AFileThatIsTooSmallIsRefused) {
  EXPECT_FALSE(StepRecord::Map(UniqueFd(memfd_create("small", MFD_CLOEXEC)), 1).ok());
  EXPECT_FALSE(StepRecord::Map(UniqueFd(dup((*StepRecord::Create(1))->fd())), 2).ok());
}

TEST(StepRecordTest, ChoicesOfARequestHaveNamesOfTheirOwn) {
  Request first{.id = "a"}, second{.id = "a"};
  EXPECT_EQ(StepRecord::NameOf(first), StepRecord::NameOf(second));
  second.sampling.choice = 1;
  EXPECT_NE(StepRecord::NameOf(first), StepRecord::NameOf(second));
}

}  // namespace
}  // namespace baton
