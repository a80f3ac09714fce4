#include "rpc/cache_messages.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(CacheMessagesTest, ChangesComeBackAsTheyWere) {
  const std::vector<CacheChange> changes = {{CacheChange::Kind::kStored, {1, ~uint64_t{0}}},
                                            {CacheChange::Kind::kRemoved, {0x0102030405060708, 9}},
                                            {CacheChange::Kind::kCleared, {}}};
  proto::CacheChanges message;
  ToProto(41, changes, &message);
  EXPECT_EQ(message.first(), 41u);
  EXPECT_EQ(*FromProto(message), changes);
  EXPECT_EQ(*DecodeHashes(EncodeHashes(std::vector<BlockHash>{{5, 6}, {7, 8}})),
            (std::vector<BlockHash>{{5, 6}, {7, 8}}));
}

TEST(CacheMessagesTest, WhatNoPeerSendsIsRefused) {
  EXPECT_FALSE(DecodeHashes("fifteen bytes..").ok());
  proto::CacheChanges message;
  message.set_kinds(std::string(2, '\0'));
  message.set_hashes(std::string(16, 'x'));
  EXPECT_FALSE(FromProto(message).ok());
  message.set_kinds("\3");
  EXPECT_FALSE(FromProto(message).ok());
}

TEST(CacheMessagesTest, StepTimesComeBackAndAreChecked) {
  const StepTimeTable times{.products = {{1, 10}, {64, 90.5}},
                            .decode_row_us = -0.5,
                            .decode_only_us = 3,
                            .decode_context_us = 0.25,
                            .prefill_context_us = 0.125};
  proto::StepTimes message;
  ToProto(times, &message);
  EXPECT_EQ(*FromProto(message), times);
  message.add_tokens(32);
  EXPECT_FALSE(FromProto(message).ok());
  message.add_us(100);
  EXPECT_FALSE(FromProto(message).ok());  // 32 after 64
}

}  // namespace
}  // namespace baton
