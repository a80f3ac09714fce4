#include "core/block_hash.h"

#include <gtest/gtest.h>

#include <numeric>

namespace baton {
namespace {

std::vector<TokenId> Tokens(int count) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 100);
  return tokens;
}

TEST(BlockHashTest, OnlyFullBlocksHaveAName) { EXPECT_EQ(HashBlocks({}, Tokens(39), 16).size(), 2u); }

TEST(BlockHashTest, EarlierTokensChangeLaterBlocks) {
  const BlockHash root = RootHash(1, "model", "");
  std::vector<TokenId> tokens = Tokens(48);
  const auto before = HashBlocks(root, tokens, 16);
  tokens[3] = 7;
  const auto after = HashBlocks(root, tokens, 16);
  for (int i = 0; i < 3; ++i) EXPECT_NE(before[i], after[i]);
}

TEST(BlockHashTest, SecretFingerprintAndSaltEachMatter) {
  const BlockHash root = RootHash(1, "model", "tenant");
  EXPECT_NE(root, RootHash(2, "model", "tenant"));
  EXPECT_NE(root, RootHash(1, "other", "tenant"));
  EXPECT_NE(root, RootHash(1, "model", "other"));
  EXPECT_EQ(root, RootHash(1, "model", "tenant"));
}

}  // namespace
}  // namespace baton
