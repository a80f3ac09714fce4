#include "model/gguf.h"

#include <gtest/gtest.h>

#include "model/test_files.h"

namespace baton {
namespace {

absl::Status ParseStatus(const std::string& file) { return GgufFile::Parse(AsBytes(file)).status(); }

TEST(GgufTest, ReadsKeysAndTensors) {
  GgufBuilder builder;
  builder.Key("text", "hello").Key("count", 7u).Key("negative", int64_t{-3}).Key("ratio", 0.5f).Key("flag", true);
  builder.Key("words", std::vector<std::string>{"a", ""}).Key("numbers", std::vector<int32_t>{4, -5});
  builder.Tensor("matrix", {64, 2}, 8, 2 * 2 * 34).Tensor("vector", {3}, 30, 6);
  for (const uint32_t version : {2u, 3u}) {
    const std::string bytes = builder.Build(version);
    const auto file = GgufFile::Parse(AsBytes(bytes));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->String("text").value(), "hello");
    EXPECT_EQ(file->Integer("count").value(), 7);
    EXPECT_EQ(file->Integer("negative").value(), -3);
    EXPECT_EQ(file->Float("ratio").value(), 0.5);
    EXPECT_EQ(file->Float("count").value(), 7);
    EXPECT_TRUE(std::get<bool>(*file->Find("flag")));
    EXPECT_EQ(file->Strings("words").value()->strings, (std::vector<std::string_view>{"a", ""}));
    EXPECT_EQ(file->Integers("numbers").value(), (std::vector<int64_t>{4, -5}));
    ASSERT_EQ(file->tensors().size(), 2u);
    const TensorView& matrix = file->tensors()[0].view;
    EXPECT_EQ(matrix.dtype, DType::kQ8_0);
    EXPECT_EQ(matrix.shape, (std::vector<int64_t>{2, 64}));
    EXPECT_EQ(matrix.bytes, 136);
    EXPECT_EQ(matrix.data[1], 1);
    const TensorView& vector = file->tensors()[1].view;
    EXPECT_EQ(vector.data - matrix.data, 160);  // the next multiple of 32
    EXPECT_EQ(vector.dtype, DType::kBF16);
  }
}

TEST(GgufTest, WrongKindOfKeyIsNamed) {
  const std::string bytes = GgufBuilder().Key("text", "hello").Build();
  const auto file = GgufFile::Parse(AsBytes(bytes));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(Says(file->Integer("text").status(), {"'text'", "expected an integer", "another type"}));
  EXPECT_TRUE(Says(file->Integer("other").status(), {"'other'", "missing"}));
  EXPECT_TRUE(Says(file->Strings("text").status(), {"'text'", "array of strings"}));
  EXPECT_TRUE(Says(file->Integers("text").status(), {"'text'", "array of integers"}));
  EXPECT_TRUE(Says(file->String("other").status(), {"'other'", "missing"}));
}

TEST(GgufTest, EveryTruncationIsAnError) {
  GgufBuilder builder = TinyGgufLlama();
  const std::string bytes = AddTinyTokenizer(builder).Build();
  ASSERT_TRUE(ParseStatus(bytes).ok());
  for (size_t length = 0; length < bytes.size(); ++length) {
    const std::vector<uint8_t> prefix = Prefix(bytes, length);
    ASSERT_FALSE(GgufFile::Parse(prefix).ok()) << length << " of " << bytes.size() << " bytes";
  }
}

TEST(GgufTest, HeaderOnlyNeedsNoData) {
  const std::string whole = GgufBuilder().Tensor("matrix", {32, 2}, 0, 256).Build();
  const auto file = GgufFile::Parse(AsBytes(whole.substr(0, whole.size() - 256)), GgufFile::Contents::kHeaderOnly);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->tensors()[0].view.bytes, 256);
  EXPECT_EQ(file->tensors()[0].view.data, nullptr);
}

TEST(GgufTest, RefusesOtherFilesAndVersions) {
  EXPECT_TRUE(Says(ParseStatus("GGML3456789012345678901234567890"), {"not a GGUF file"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Build(1)), {"version 1"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Build(0x03000000)), {"big-endian"}));
}

TEST(GgufTest, RefusesTypesByName) {
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {256}, 10, 84).Build()), {"'t'", "Q2_K", "supported are"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {256}, 999, 84).Build()), {"999", "unknown"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().RawKey("k", static_cast<GgufType>(13), "").Build()), {"'k'", "13"}));
}

TEST(GgufTest, RefusesImpossibleTensors) {
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {33}, 8, 34).Build()), {"'t'", "33", "blocks of 32"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {0}, 0, 0).Build()), {"'t'", "impossible extent 0"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {}, 0, 0).Build()), {"'t'", "dimensions, found 0"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {1, 1, 1, 1, 1}, 0, 4).Build()), {"found 5"}));
  // A product that wraps around to something small.
  const uint64_t big = uint64_t{1} << 33;
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Tensor("t", {big, big}, 0, 4).Build()), {"'t'", "impossible extent"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().TensorAt("t", {8}, 0, 32, 32).Build()), {"'t'", "leave the file"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().TensorAt("t", {8}, 0, ~uint64_t{31}, 32).Build()), {"leave the file"}));
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().TensorAt("t", {8}, 0, 8, 64).Build()), {"'t'", "multiple of the align"}));
  GgufBuilder overlapping;
  overlapping.TensorAt("a", {16}, 0, 0, 64).TensorAt("b", {8}, 0, 32, 0);
  EXPECT_TRUE(Says(ParseStatus(overlapping.Build()), {"'a'", "'b'", "overlap"}));
}

TEST(GgufTest, RefusesBadMetadata) {
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Key("k", 1u).Key("k", 2u).Build()), {"'k'", "twice"}));
  for (const uint32_t alignment : {0u, 4u, 48u, 1u << 21}) {
    EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Key("general.alignment", alignment).Build()), {"power of two"}))
        << alignment;
  }
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().Key("general.alignment", "x").Build()), {"general.alignment", "integer"}));
  std::string huge = "GGUF";
  GgufBuilder::Put(huge, uint32_t{3});
  GgufBuilder::Put(huge, ~uint64_t{0});
  GgufBuilder::Put(huge, uint64_t{0});
  EXPECT_TRUE(Says(ParseStatus(huge), {"at most"}));
}

// The encoding of `depth` arrays inside one another, the innermost empty.
std::string NestedArrays(int depth) {
  std::string bytes;
  for (int i = 1; i < depth; ++i) {
    GgufBuilder::Put(bytes, static_cast<uint32_t>(GgufType::kArray));
    GgufBuilder::Put(bytes, uint64_t{1});
  }
  GgufBuilder::Put(bytes, static_cast<uint32_t>(GgufType::kUint8));
  GgufBuilder::Put(bytes, uint64_t{0});
  return bytes;
}

TEST(GgufTest, ArraysAreBounded) {
  EXPECT_TRUE(ParseStatus(GgufBuilder().RawKey("k", GgufType::kArray, NestedArrays(4)).Key("after", 1u).Build()).ok());
  EXPECT_TRUE(Says(ParseStatus(GgufBuilder().RawKey("k", GgufType::kArray, NestedArrays(5)).Build()), {"nested"}));
  for (const GgufType element : {GgufType::kUint8, GgufType::kString, GgufType::kFloat64, GgufType::kArray}) {
    std::string bytes;
    GgufBuilder::Put(bytes, static_cast<uint32_t>(element));
    GgufBuilder::Put(bytes, ~uint64_t{0} / 8 + 2);  // times 8 it wraps around
    EXPECT_TRUE(Says(ParseStatus(GgufBuilder().RawKey("k", GgufType::kArray, bytes).Build()), {"ends inside k"}));
  }
}

}  // namespace
}  // namespace baton
