#include "gatefold/checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gatefold/checkpoint/safetensors_writer.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kIndex[] = "model.safetensors.index.json";

// A file of float32 vectors of `n` elements, all of them `value`.
void WriteFile(const TempDir& dir, const std::string& file, const std::vector<std::string>& names,
               int64_t n = 2, float value = 1) {
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::kF32, {n}});
  auto writer = SafetensorsWriter::Create(dir.File(file), tensors);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<float> values(n, value);
  for (size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE((*writer)->Append(values.data(), values.size() * sizeof(float)).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
}

absl::Status OpenStatus(const TempDir& dir) { return Checkpoint::Open(dir.path()).status(); }

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(Checkpoint, FindsTensorsOfASingleFile) {
  const auto checkpoint = Checkpoint::Open("tests/golden/mixtral/bf16");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto embedding = (*checkpoint)->Find("model.embed_tokens.weight");
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->dtype, DType::kBF16);
  EXPECT_THAT(embedding->shape, ElementsAre(512, 64));
  EXPECT_TRUE(std::is_sorted((*checkpoint)->names().begin(), (*checkpoint)->names().end()));
  EXPECT_EQ((*checkpoint)->Find("nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST(Checkpoint, ShardedFolderHasTheSameTensors) {
  const auto single = Checkpoint::Open("tests/golden/mixtral/bf16");
  const auto sharded = Checkpoint::Open("tests/golden/mixtral_sharded/bf16");
  ASSERT_TRUE(single.ok()) << single.status();
  ASSERT_TRUE(sharded.ok()) << sharded.status();
  ASSERT_EQ((*single)->names(), (*sharded)->names());
  EXPECT_EQ((*single)->total_bytes(), (*sharded)->total_bytes());
  for (const std::string& name : (*single)->names()) {
    const TensorView a = *(*single)->Find(name);
    const TensorView b = *(*sharded)->Find(name);
    ASSERT_EQ(a.shape, b.shape) << name;
    EXPECT_EQ(std::memcmp(a.data, b.data, a.size_bytes()), 0) << name;
  }
  EXPECT_EQ(WeightDigest(**single, (*single)->names()),
            WeightDigest(**sharded, (*sharded)->names()));
}

TEST(Checkpoint, NamesTheFolderThatHasNoWeights) {
  TempDir dir;
  EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr(dir.path()));
}

TEST(Checkpoint, PrefersTheSingleFileToTheIndex) {
  TempDir dir;
  WriteFile(dir, "model.safetensors", {"a"});
  dir.Write(kIndex, "broken");
  EXPECT_TRUE(OpenStatus(dir).ok()) << OpenStatus(dir);
}

TEST(Checkpoint, RefusesWeightsOfAnotherTypeByName) {
  TempDir dir;
  const std::string header = R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  dir.Write("model.safetensors", file + header + std::string(8, 'x'));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->Find("a").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ((*checkpoint)->Entry("a")->dtype, "I64");
}

TEST(Checkpoint, RefusesATruncatedShard) {
  TempDir dir;
  WriteFile(dir, "s1", {"a"});
  dir.Write(kIndex, R"({"weight_map":{"a":"s1"}})");
  ASSERT_TRUE(OpenStatus(dir).ok()) << OpenStatus(dir);
  std::filesystem::resize_file(dir.File("s1"), std::filesystem::file_size(dir.File("s1")) - 1);
  EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr("s1"));
}

TEST(Checkpoint, RefusesATensorInTwoFiles) {
  TempDir dir;
  WriteFile(dir, "s1", {"a", "b"});
  WriteFile(dir, "s2", {"b"});
  dir.Write(kIndex, R"({"weight_map":{"a":"s1","b":"s2"}})");
  EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr("\"b\" is in two files"));
}

TEST(Checkpoint, RefusesTwoNamesOfOneFileBeforeItsTensors) {
  TempDir dir;
  WriteFile(dir, "s1", {"a", "b"});
  std::filesystem::create_symlink("s1", dir.File("s2"));
  std::filesystem::create_hard_link(dir.File("s1"), dir.File("s3"));
  for (const std::string link : {"s2", "s3"}) {
    dir.Write(kIndex, R"({"weight_map":{"a":"s1","b":")" + link + R"("}})");
    EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr("s1 and " + link + " are the same file"));
  }
}

TEST(Checkpoint, RefusesAMappedTensorThatItsFileLacks) {
  TempDir dir;
  WriteFile(dir, "s1", {"a"});
  WriteFile(dir, "s2", {"b"});
  dir.Write(kIndex, R"({"weight_map":{"a":"s2","b":"s2","c":"s1"}})");
  EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr("\"a\" is not in s2"));
}

TEST(Checkpoint, RefusesAMissingShard) {
  TempDir dir;
  dir.Write(kIndex, R"({"weight_map":{"a":"s1"}})");
  EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kNotFound);
}

TEST(Checkpoint, RefusesFileNamesThatLeaveTheFolder) {
  TempDir outside;
  WriteFile(outside, "s1", {"a"});
  for (const std::string name : {"../s1", "/s1", "sub/s1", "..", ".", "", "a\\\\b", "s1\\u0000"}) {
    TempDir dir;
    dir.Write(kIndex, R"({"weight_map":{"a":")" + name + R"("}})");
    EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Message(OpenStatus(dir)), HasSubstr("not the name of a file")) << name;
  }
}

TEST(Checkpoint, RefusesABrokenIndex) {
  for (const std::string text :
       {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})",
        R"({"weight_map":{"a":"s1","a":"s1"}})"}) {
    TempDir dir;
    WriteFile(dir, "s1", {"a"});
    dir.Write(kIndex, text);
    EXPECT_EQ(OpenStatus(dir).code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(WeightDigest, SeesNameTypeShapeAndContent) {
  const auto digest = [](const std::string& name, int64_t n, float value) {
    TempDir dir;
    WriteFile(dir, "model.safetensors", {name}, n, value);
    const auto checkpoint = Checkpoint::Open(dir.path());
    return WeightDigest(**checkpoint, (*checkpoint)->names());
  };
  const std::string base = digest("a", 4, 1);
  EXPECT_EQ(base.size(), 64u);
  EXPECT_EQ(base, digest("a", 4, 1));
  EXPECT_NE(base, digest("b", 4, 1));
  EXPECT_NE(base, digest("a", 5, 1));
  EXPECT_NE(base, digest("a", 4, 2));
}

TEST(WeightDigest, SamplesFirstAndLastBytesOfLargeTensors) {
  const int64_t n = (kWholeDigestBytes / 4) * 2;
  const auto digest = [&](int64_t changed) {
    TempDir dir;
    auto writer =
        SafetensorsWriter::Create(dir.File("model.safetensors"), {{"a", DType::kF32, {n}}});
    std::vector<float> values(n, 1);
    if (changed >= 0) values[changed] = 2;
    EXPECT_TRUE((*writer)->Append(values.data(), values.size() * 4).ok());
    EXPECT_TRUE((*writer)->Finish().ok());
    const auto checkpoint = Checkpoint::Open(dir.path());
    return WeightDigest(**checkpoint, {"a"});
  };
  const std::string base = digest(-1);
  EXPECT_NE(base, digest(0));
  EXPECT_NE(base, digest(n - 1));
  // Between the first block and the second: not sampled, as the header says.
  EXPECT_EQ(base, digest(1024));
}

// KiB of mapped files in this process's memory.
int64_t ResidentFileKib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssFile:", 0) == 0) return std::stoll(line.substr(8));
  }
  return -1;
}

TEST(DropPages, GivesMemoryBackAndKeepsTheContent) {
  constexpr int64_t kElements = 4 << 20;
  TempDir dir;
  WriteFile(dir, "model.safetensors", {"a"}, kElements, 3);
  const auto checkpoint = Checkpoint::Open(dir.path());
  const TensorView view = *(*checkpoint)->Find("a");
  const auto sum = [&] {
    double total = 0;
    for (int64_t i = 0; i < kElements; ++i) {
      float value;
      std::memcpy(&value, static_cast<const char*>(view.data) + i * 4, 4);
      total += value;
    }
    return total;
  };
  PrefetchPages(view.data, view.size_bytes());
  const int64_t before = ResidentFileKib();
  EXPECT_EQ(sum(), 3.0 * kElements);
  const int64_t touched = ResidentFileKib();
  EXPECT_GT(touched, before + 15 * 1024);
  DropPages(view.data, 1);  // no whole page
  EXPECT_GT(ResidentFileKib(), before + 15 * 1024);
  DropPages(view.data, view.size_bytes());
  EXPECT_LT(ResidentFileKib(), before + 1024);
  EXPECT_EQ(sum(), 3.0 * kElements);
}

}  // namespace
}  // namespace gatefold
