#include "gatefold/checkpoint/safetensors.h"

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/safetensors_writer.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string LengthPrefix(uint64_t length) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

// A file with this header and `n_data` bytes of data.
std::string FileOf(const std::string& header, size_t n_data = 0) {
  return LengthPrefix(header.size()) + header + std::string(n_data, 'x');
}

absl::StatusOr<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensors(file.data(), file.size(), file.size());
}

std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return absl::StrCat(R"({"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)",
                      offsets, "}");
}

struct Refusal {
  const char* name;
  std::string file;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Refusal& refusal) { return out << refusal.name; }

class SafetensorsRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(SafetensorsRefusal, NamesTheReason) {
  const auto header = Parse(GetParam().file);
  ASSERT_FALSE(header.ok());
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(header.status().message()), HasSubstr(GetParam().message));
}

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t n_data) {
  return FileOf(R"({"a":)" + Entry(dtype, shape, offsets) + "}", n_data);
}

std::string Two(const std::string& first, const std::string& second, size_t n_data) {
  return FileOf(
      R"({"a":)" + Entry("U8", "[4]", first) + R"(,"b":)" + Entry("U8", "[4]", second) + "}",
      n_data);
}

const std::string kGood = Entry("F32", "[1]", "[0,4]");

INSTANTIATE_TEST_SUITE_P(
    Files, SafetensorsRefusal,
    ::testing::Values(
        Refusal{"Empty", "", "at least 8 bytes"},
        Refusal{"SevenBytes", std::string(7, '\0'), "at least 8 bytes"},
        Refusal{"NoHeader", LengthPrefix(0), "does not start with '{'"},
        Refusal{"HeaderPastFile", LengthPrefix(3) + "{}", "claims 3 bytes"},
        Refusal{"HeaderTooLong", LengthPrefix(100'000'001) + "{}", "at most 100000000"},
        Refusal{"HeaderOverflows", LengthPrefix(~uint64_t{0}) + "{}",
                "claims 18446744073709551615"},
        Refusal{"HeaderOverflowsWithPrefix", LengthPrefix(~uint64_t{0} - 7) + "{}", "claims"},
        Refusal{"Array", FileOf("[]"), "does not start with '{'"},
        Refusal{"LeadingSpace", FileOf(" {}"), "does not start with '{'"},
        Refusal{"ByteOrderMark", FileOf("\xef\xbb\xbf{}"), "does not start with '{'"},
        Refusal{"NotJson", FileOf("{oops}"), "not valid JSON"},
        Refusal{"Unclosed", FileOf("{"), "not valid JSON"},
        Refusal{"TextAfterObject", FileOf("{} {}"), "not valid JSON"},
        Refusal{"NulAfterObject", FileOf(std::string("{}\0", 3)), "NUL"},
        Refusal{"InvalidUtf8", FileOf("{\"\xff\":" + kGood + "}", 4), "not valid JSON"},
        Refusal{"OverlongUtf8", FileOf("{\"\xc0\xaf\":" + kGood + "}", 4), "not valid JSON"},
        Refusal{"LoneSurrogate", FileOf("{\"\\ud800\":" + kGood + "}", 4), "not valid JSON"},
        Refusal{"TrailingComma", FileOf("{\"a\":" + kGood + ",}", 4), "not valid JSON"},
        Refusal{"DuplicateTensor", FileOf("{\"a\":" + kGood + ",\"a\":" + kGood + "}", 4),
                "\"a\" appears twice"},
        Refusal{"DuplicateTensorEscaped",
                FileOf("{\"a\":" + kGood + ",\"\\u0061\":" + kGood + "}", 4), "appears twice"},
        Refusal{"DuplicateField",
                FileOf(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
                "\"dtype\" appears twice"},
        Refusal{"DuplicateMetadata", FileOf(R"({"__metadata__":{"k":"1","k":"2"}})"),
                "\"k\" appears twice"},
        Refusal{"DuplicateMetadataObject", FileOf(R"({"__metadata__":{},"__metadata__":{}})"),
                "__metadata__ appears twice"},
        Refusal{"MetadataNumber", FileOf(R"({"__metadata__":{"k":1}})"), "not a string"},
        Refusal{"MetadataObject", FileOf(R"({"__metadata__":{"k":{}}})"), "not a string"},
        Refusal{"MetadataNull", FileOf(R"({"__metadata__":{"k":null}})"), "not a string"},
        Refusal{"MetadataArray", FileOf(R"({"__metadata__":[]})"), "__metadata__ is an array"},
        Refusal{"MetadataString", FileOf(R"({"__metadata__":"k"})"), "__metadata__ is a string"},
        Refusal{"EntryNumber", FileOf(R"({"a":1})"), "tensor \"a\": its entry is a number"},
        Refusal{"EntryArray", FileOf(R"({"a":[]})"), "its entry is an array"},
        Refusal{"EntryNull", FileOf(R"({"a":null})"), "its entry is null"},
        Refusal{"NoDType", FileOf(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1),
                "has no dtype"},
        Refusal{"NoShape", FileOf(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1),
                "has no shape"},
        Refusal{"NoOffsets", FileOf(R"({"a":{"dtype":"U8","shape":[1]}})", 1),
                "has no data_offsets"},
        Refusal{"DTypeNumber", FileOf(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})", 1),
                "dtype is a number"},
        Refusal{"LowerCaseDType", One("f32", "[1]", "[0,4]", 4), "unknown dtype \"f32\""},
        Refusal{"UnknownDType", One("F31", "[1]", "[0,4]", 4), "unknown dtype"},
        Refusal{"ShapeNumber", One("U8", "1", "[0,1]", 1), "shape is a number"},
        Refusal{"ShapeObject", One("U8", "{}", "[0,1]", 1), "shape is an object"},
        Refusal{"ShapeNested", One("U8", "[[1]]", "[0,1]", 1), "shape has an array"},
        Refusal{"ShapeNegative", One("U8", "[-1]", "[0,1]", 1), "negative"},
        Refusal{"ShapeMinusZero", One("U8", "[-0]", "[0,0]", 0), "negative"},
        Refusal{"ShapeFraction", One("U8", "[1.5]", "[0,1]", 1), "1.5"},
        Refusal{"ShapeWholeFraction", One("U8", "[2.0]", "[0,2]", 2), "2.0"},
        Refusal{"ShapeExponent", One("U8", "[2e0]", "[0,2]", 2), "2e0"},
        Refusal{"ShapeString", One("U8", "[\"1\"]", "[0,1]", 1), "shape has a string"},
        Refusal{"ShapeTrue", One("U8", "[true]", "[0,1]", 1), "shape has a boolean"},
        Refusal{"ShapePastUint64", One("U8", "[18446744073709551616]", "[0,1]", 1), "not a whole"},
        Refusal{"ShapePastInt64", One("U8", "[9223372036854775808]", "[0,1]", 1), "too large"},
        Refusal{"ProductOverflows", One("U8", "[4294967296,4294967296]", "[0,0]", 0), "overflows"},
        Refusal{"ProductOverflowsBeforeZero", One("U8", "[4294967296,4294967296,0]", "[0,0]", 0),
                "overflows"},
        Refusal{"BitsOverflow", One("F32", "[2305843009213693952]", "[0,0]", 0), "overflows"},
        Refusal{"OddFourBit", One("F4", "[3]", "[0,2]", 2), "whole bytes"},
        Refusal{"RankBomb",
                One("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
                    "[0,1]", 1),
                "more than 32 dimensions"},
        Refusal{"OneOffset", One("U8", "[1]", "[0]", 1), "has 1 numbers"},
        Refusal{"ThreeOffsets", One("U8", "[1]", "[0,1,2]", 1), "more than two"},
        Refusal{"OffsetsFraction", One("U8", "[1]", "[0.0,1]", 1), "0.0"},
        Refusal{"OffsetsNegative", One("U8", "[1]", "[-1,0]", 1), "negative"},
        Refusal{"OffsetsReversed", One("U8", "[0]", "[1,0]", 1), "before they begin"},
        Refusal{"SizeTooSmall", One("F32", "[2]", "[0,4]", 4), "span 4 bytes"},
        Refusal{"SizeTooLarge", One("F32", "[1]", "[0,8]", 8), "span 8 bytes"},
        Refusal{"HoleAtStart", One("U8", "[4]", "[1,5]", 5), "hole"},
        Refusal{"HoleBetween", Two("[0,4]", "[5,9]", 9), "hole"},
        Refusal{"Overlap", Two("[0,4]", "[3,7]", 7), "overlaps"},
        Refusal{"SamePlace", Two("[0,4]", "[0,4]", 4), "overlaps"},
        Refusal{"Truncated", One("F32", "[2]", "[0,8]", 7), "truncated"},
        Refusal{"TrailingBytes", One("F32", "[1]", "[0,4]", 5), "the file at 5"},
        Refusal{"DataWithoutTensors", FileOf("{}", 1), "the file at 1"}),
    [](const auto& info) { return info.param.name; });

TEST(ParseSafetensors, RefusesNestingBombInUnknownField) {
  const std::string bomb(100'000, '[');
  const auto header = Parse(FileOf(R"({"a":{"x":)" + bomb));
  EXPECT_THAT(std::string(header.status().message()), HasSubstr("nested too deep"));
}

TEST(ParseSafetensors, AcceptsWhatTheFormatAllows) {
  EXPECT_THAT(Parse(FileOf("{}"))->tensors, IsEmpty());
  EXPECT_THAT(Parse(FileOf("{}      "))->tensors, IsEmpty());
  EXPECT_THAT(Parse(FileOf(R"({"__metadata__":null})"))->tensors, IsEmpty());
  EXPECT_EQ(Parse(FileOf(R"({"__metadata__":{"format":"pt"}})"))->metadata.at("format"), "pt");
  EXPECT_THAT(Parse(One("F32", "[]", "[0,4]", 4))->tensors[0].shape, IsEmpty());
  EXPECT_THAT(Parse(One("F32", "[3,0]", "[0,0]", 0))->tensors[0].shape, ElementsAre(3, 0));
  EXPECT_EQ(Parse(One("F4", "[4]", "[0,2]", 2))->tensors[0].size_bytes(), 2u);
  EXPECT_EQ(Parse(FileOf("{\"\":" + kGood + "}", 4))->tensors[0].name, "");
}

TEST(ParseSafetensors, SkipsUnknownFieldsOfAnEntry) {
  const auto header = Parse(FileOf(
      R"({"a":{"x":{"shape":[7],"y":[[1],{}]},"dtype":"U8","z":-1.5,"shape":[2],"data_offsets":[0,2]},)"
      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3],"w":[null,true,"s"]}})",
      3));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_THAT(header->tensors[0].shape, ElementsAre(2));
  EXPECT_EQ(header->tensors[1].begin, 2u);
}

TEST(ParseSafetensors, SortsTensorsByPlace) {
  const auto header = Parse(Two("[4,8]", "[0,4]", 8));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors[0].name, "b");
  EXPECT_EQ(header->tensors[1].name, "a");
}

TEST(ParseSafetensors, KnowsEveryTypeOfTheFormat) {
  for (const char* dtype :
       {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    EXPECT_TRUE(Parse(One(dtype, "[8]", "[0,8]", 8)).ok()) << dtype;
  }
  for (const char* dtype : {"I16", "U16", "F16", "BF16"}) {
    EXPECT_TRUE(Parse(One(dtype, "[8]", "[0,16]", 16)).ok()) << dtype;
  }
  for (const char* dtype : {"I32", "U32", "F32"}) {
    EXPECT_TRUE(Parse(One(dtype, "[8]", "[0,32]", 32)).ok()) << dtype;
  }
  for (const char* dtype : {"I64", "U64", "F64", "C64"}) {
    EXPECT_TRUE(Parse(One(dtype, "[8]", "[0,64]", 64)).ok()) << dtype;
  }
  for (const char* dtype : {"F6_E2M3", "F6_E3M2"}) {
    EXPECT_TRUE(Parse(One(dtype, "[8]", "[0,6]", 6)).ok()) << dtype;
  }
}

TEST(SafetensorsFile, ReadsWhatTheWriterWrote) {
  TempDir dir;
  const float values[3] = {1, 2, 3};
  const uint16_t halves[1] = {0x3c00};
  {
    auto writer = SafetensorsWriter::Create(
        dir.File("x"), {{"odd \"name\"", DType::kF16, {1}}, {"v", DType::kF32, {3, 1}}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(halves, 2).ok());
    ASSERT_TRUE((*writer)->Append(values, 4).ok());
    ASSERT_TRUE((*writer)->Append(values + 1, 8).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  const auto file = SafetensorsFile::Open(dir.File("x"));
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsTensor* v = (*file)->Find("v");
  ASSERT_NE(v, nullptr);
  EXPECT_EQ(v->dtype, "F32");
  EXPECT_THAT(v->shape, ElementsAre(3, 1));
  EXPECT_EQ(std::memcmp(v->data, values, sizeof values), 0);
  EXPECT_NE((*file)->Find("odd \"name\""), nullptr);
  EXPECT_EQ((*file)->Find("w"), nullptr);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
}

TEST(SafetensorsFile, RefusesFolderAndMissingFile) {
  TempDir dir;
  EXPECT_EQ(SafetensorsFile::Open(dir.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(dir.path()).status().code(), absl::StatusCode::kInvalidArgument);
  dir.Write("empty", "");
  EXPECT_EQ(SafetensorsFile::Open(dir.File("empty")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SafetensorsWriter, RefusesToFinishShortAndToOverflow) {
  TempDir dir;
  auto writer = SafetensorsWriter::Create(dir.File("x"), {{"v", DType::kF32, {1}}});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE((*writer)->Append("12345", 5).ok());
  EXPECT_TRUE((*writer)->Append("1234", 4).ok());
  EXPECT_TRUE((*writer)->Finish().ok());
  EXPECT_FALSE(
      SafetensorsWriter::Create(dir.File("y"), {{"v", DType::kF32, {1}}, {"v", DType::kF32, {1}}})
          .ok());
}

}  // namespace
}  // namespace gatefold
