#include "model/safetensors.h"

#include <gtest/gtest.h>

#include "model/test_files.h"

namespace baton {
namespace {

absl::Status ParseStatus(std::string_view header, std::string_view data) {
  const std::string file = SafetensorsFile(header, data);
  return ParseSafetensors(AsBytes(file)).status();
}

constexpr std::string_view kTwoTensors =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
    R"("b":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[12,16]}})";

TEST(SafetensorsTest, ReadsTensors) {
  const std::string file = SafetensorsFile(kTwoTensors, "0123456789abcdef");
  const auto tensors = ParseSafetensors(AsBytes(file));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ(tensors->at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors->at("a").dtype, DType::kBF16);
  EXPECT_EQ(tensors->at("a").bytes, 12);
  EXPECT_EQ(tensors->at("b").dtype, DType::kF8E4M3);
  EXPECT_EQ(tensors->at("b").data[0], 'c');
}

TEST(SafetensorsTest, ScalarsHaveNoShape) {
  const std::string file = SafetensorsFile(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "0123");
  const auto tensors = ParseSafetensors(AsBytes(file));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->at("s").shape.empty());
}

TEST(SafetensorsTest, EveryTruncationIsAnError) {
  const std::string file = SafetensorsFile(kTwoTensors, "0123456789abcdef");
  for (size_t length = 0; length < file.size(); ++length) {
    const std::vector<uint8_t> prefix = Prefix(file, length);
    ASSERT_FALSE(ParseSafetensors(prefix).ok()) << length << " of " << file.size() << " bytes";
  }
}

TEST(SafetensorsTest, RefusesBadHeaders) {
  EXPECT_TRUE(Says(ParseStatus("", ""), {"not valid JSON"}));
  EXPECT_TRUE(Says(ParseStatus("[1]", ""), {"expected an object"}));
  EXPECT_TRUE(Says(ParseStatus(R"({"a":3})", ""), {"'a'", "expected an object, found 3"}));
  EXPECT_TRUE(Says(ParseStatus(std::string(1000, '['), ""), {"not valid JSON"}));
  std::string huge;
  GgufBuilder::Put(huge, kMaxSafetensorsHeader + 1);
  EXPECT_TRUE(Says(ParseSafetensors(AsBytes(huge)).status(), {"at most 100000000"}));
  std::string beyond;
  GgufBuilder::Put(beyond, uint64_t{1000});
  EXPECT_TRUE(Says(ParseSafetensors(AsBytes(beyond)).status(), {"header of 1000 bytes", "download"}));
}

TEST(SafetensorsTest, RefusesBadTensors) {
  const auto status = [](std::string_view entry) {
    return ParseStatus(Cat(R"({"t":{)", entry, "}}"), "0123456789abcdef");
  };
  EXPECT_TRUE(status(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])").ok());
  EXPECT_TRUE(Says(status(R"("dtype":"I64","shape":[2],"data_offsets":[0,16])"), {"'t'", "'I64'", "supported are"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2])"), {"'F8_E5M2'"}));
  EXPECT_TRUE(Says(status(R"("shape":[2],"data_offsets":[0,16])"), {"'t'", "'dtype' is missing"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[3],"data_offsets":[0,16])"), {"expected 12 bytes", "found 16"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4],"data_offsets":[4,20])"), {"4 to 20", "not within"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), {"not within"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4],"data_offsets":[-16,0])"), {"not within"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), {"'data_offsets'", "two integers"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"), {"'shape'"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])"), {"at least 1"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), {"at least 1"}));
  // A product that wraps around to 4.
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16])"), {"fit a file"}));
  EXPECT_TRUE(Says(status(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16])"), {"fit a file"}));
}

TEST(SafetensorsTest, RefusesOverlap) {
  EXPECT_TRUE(Says(ParseStatus(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                               R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                               "0123456789ab"),
                   {"'a'", "'b'", "overlap"}));
}

}  // namespace
}  // namespace baton
