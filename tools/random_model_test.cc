#include "tools/random_model.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/mapped_file.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/model/model_weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tools/byte_tokenizer.h"
#include "tools/random_numbers.h"

namespace gatefold {
namespace {

RandomModelOptions Small() {
  RandomModelOptions o;
  o.d_model = 32;
  o.heads = 4;
  o.layers = 2;
  o.intermediate = 40;
  return o;
}

std::unique_ptr<ModelWeights> WriteAndOpen(const RandomModelOptions& options) {
  TempDir dir;
  const absl::Status written = WriteRandomModel(options, dir.File("model"));
  EXPECT_TRUE(written.ok()) << written;
  auto weights = ModelWeights::Open(dir.File("model"));
  EXPECT_TRUE(weights.ok()) << weights.status();
  return weights.ok() ? *std::move(weights) : nullptr;
}

TEST(RandomModel, LoadsInEveryFamilyAndType) {
  for (const char* family : {"mixtral", "llama", "mistral"}) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      RandomModelOptions o = Small();
      o.family = family;
      o.dtype = dtype;
      const auto w = WriteAndOpen(o);
      ASSERT_NE(w, nullptr);
      EXPECT_EQ(w->expert_dtype(), dtype);
      EXPECT_EQ(w->config().family, family);
    }
  }
}

TEST(RandomModel, WritesBiasesTiesAndWindows) {
  RandomModelOptions o = Small();
  o.family = "llama";
  o.attention_bias = o.mlp_bias = o.tie_word_embeddings = true;
  EXPECT_TRUE(WriteAndOpen(o)->config().mlp_bias);
  o = Small();
  o.sliding_window = 5;
  o.head_dim = 12;
  EXPECT_EQ(WriteAndOpen(o)->config().sliding_window, 5);
  o.family = "mistral";
  EXPECT_EQ(WriteAndOpen(o)->config().sliding_window, 5);
  o.sliding_window = 0;
  EXPECT_EQ(WriteAndOpen(o)->config().sliding_window, 0);
}

TEST(RandomModel, SameSeedSameWeightsWhateverTheType) {
  RandomModelOptions o = Small();
  const std::string first = WriteAndOpen(o)->Fingerprint();
  EXPECT_EQ(WriteAndOpen(o)->Fingerprint(), first);
  o.seed = 2;
  EXPECT_NE(WriteAndOpen(o)->Fingerprint(), first);
  o = Small();
  const auto narrow = WriteAndOpen(o);
  o.dtype = DType::kF32;
  const auto wide = WriteAndOpen(o);
  const MatrixView a = narrow->Expert(1, 3).w2;
  const MatrixView b = wide->Expert(1, 3).w2;
  for (int64_t i = 0; i < a.n_rows * a.n_cols; ++i) {
    uint16_t bits;
    float value;
    std::memcpy(&bits, static_cast<const char*>(a.data) + 2 * i, 2);
    std::memcpy(&value, static_cast<const char*>(b.data) + 4 * i, 4);
    ASSERT_EQ(bits, FloatToBF16(value));
  }
}

TEST(RandomModel, RefusesWhatNoServiceWouldLoad) {
  TempDir dir;
  RandomModelOptions o = Small();
  o.kv_heads = 3;
  EXPECT_EQ(WriteRandomModel(o, dir.File("m")).code(), absl::StatusCode::kInvalidArgument);
  o = Small();
  o.vocab = 258;
  EXPECT_EQ(WriteRandomModel(o, dir.File("m")).code(), absl::StatusCode::kInvalidArgument);
  o = Small();
  o.heads = 0;
  EXPECT_EQ(WriteRandomModel(o, dir.File("m")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ApplyPreset("huge", &o).code(), absl::StatusCode::kInvalidArgument);
}

TEST(RandomModel, PresetsHaveTheSizesTheyNamed) {
  RandomModelOptions o;
  ASSERT_TRUE(ApplyPreset("peers", &o).ok());
  EXPECT_EQ(o.intermediate * o.experts, 22528);
  ASSERT_TRUE(ApplyPreset("peers-dense-total", &o).ok());
  EXPECT_EQ(o.intermediate, 22528);
  EXPECT_EQ(o.family, "llama");
  RandomModelOptions mixtral;
  ASSERT_TRUE(ApplyPreset("mixtral-8x7b", &mixtral).ok());
  EXPECT_EQ(mixtral.layers * mixtral.experts, 256);
  EXPECT_EQ(mixtral.intermediate, 14336);
}

TEST(RandomNumbers, HaveTheMeanAndDeviationAskedFor) {
  const RandomNumbers random(7, "name", 1, 0.5f);
  std::vector<float> values(1 << 16);
  random.Fill(DType::kF32, 0, static_cast<int64_t>(values.size()), values.data());
  double sum = 0, squares = 0;
  for (float v : values) sum += v;
  const double mean = sum / values.size();
  for (float v : values) squares += (v - mean) * (v - mean);
  EXPECT_NEAR(mean, 1, 0.01);
  EXPECT_NEAR(std::sqrt(squares / values.size()), 0.5, 0.01);
  float again[3];
  random.Fill(DType::kF32, 1000, 3, again);
  EXPECT_EQ(again[2], values[1002]);
}

TEST(RandomNumbers, RoundsToHalf) {
  for (int bits = 0; bits < 0x7c00; ++bits) {
    ASSERT_EQ(RandomNumbers::FloatToF16(F16ToFloat(static_cast<uint16_t>(bits))), bits);
  }
  EXPECT_EQ(RandomNumbers::FloatToF16(-1.0f), 0xbc00);
  EXPECT_EQ(RandomNumbers::FloatToF16(1.0f + 0x1p-11f), 0x3c00);      // tie to even
  EXPECT_EQ(RandomNumbers::FloatToF16(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie to even
  EXPECT_EQ(RandomNumbers::FloatToF16(2.0f - 0x1p-13f), 0x4000);      // carries over
}

TEST(ByteTokenizer, HasEveryByteOnceAndOnlyMergesOfKnownParts) {
  const auto json = nlohmann::json::parse(*ByteTokenizerJson(288));
  const auto& vocab = json["model"]["vocab"];
  EXPECT_EQ(vocab.size(), 288u);
  std::vector<bool> seen(288);
  for (const auto& [token, id] : vocab.items()) {
    ASSERT_LT(id.get<int>(), 288);
    EXPECT_FALSE(seen[id.get<int>()]) << token;
    seen[id.get<int>()] = true;
  }
  EXPECT_EQ(vocab["Ġ"], 3 + ' ');
  EXPECT_EQ(vocab["Ċ"], 3 + '\n');
  EXPECT_EQ(vocab["ÿ"], 3 + 255);
  EXPECT_EQ(vocab["Ń"], 3 + 173);
  int id = 259;
  for (const std::string merge : json["model"]["merges"]) {
    const size_t space = merge.find(' ');
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    ASSERT_TRUE(vocab.contains(left) && vocab.contains(right)) << merge;
    EXPECT_LT(vocab[left].get<int>(), id);
    EXPECT_LT(vocab[right].get<int>(), id);
    EXPECT_EQ(vocab[left + right], id++) << merge;
  }
  EXPECT_EQ(id, 288);
}

}  // namespace
}  // namespace gatefold
