#include "gatefold/model/expert_catalog.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

constexpr char kSparse[] = "tests/golden/mixtral/bf16";
constexpr char kBiased[] = "tests/golden/llama_biases";

std::string Image(const ExpertLayout& layout, const ExpertRowReader& rows) {
  std::string image(layout.size_bytes(), '\0');
  layout.Read(rows, 0, image.size(), image.data());
  return image;
}

TEST(ExpertLayoutTest, AnImageIsTheSameInWhateverPiecesItIsRead) {
  const auto weights = *ModelWeights::Open(kBiased, {3});
  for (int slice = 0; slice < 3; ++slice) {
    const ExpertWeightsView view = weights->Expert(1, slice);
    const ExpertLayout layout = ExpertLayout::Of(view);
    EXPECT_EQ(layout.size_bytes(), weights->ExpertBytes(1, slice));
    EXPECT_EQ(layout.parts().size(), slice == 0 ? 6u : 5u);
    const std::string whole = Image(layout, RowsOf(view));
    for (const size_t step : {1000, 4096, 7}) {
      std::string pieces;
      for (uint64_t at = 0; at < layout.size_bytes(); at += step) {
        std::string piece(std::min<uint64_t>(step, layout.size_bytes() - at), '\0');
        layout.Read(RowsOf(view), at, piece.size(), piece.data());
        pieces += piece;
      }
      EXPECT_EQ(pieces, whole);
    }
    // And a view of it is the expert again: w2's columns lie together now.
    EXPECT_EQ(Image(layout, RowsOf(layout.View(whole.data()))), whole);
    EXPECT_EQ(ExpertLayout::Of(layout.View(whole.data())), layout);
  }
}

TEST(ExpertLayoutTest, ADigestSeesEveryByteAndTheShape) {
  const ExpertLayout layout({.d_model = 6, .d_ff = 4, .dtype = DType::kF16});
  std::string image(layout.size_bytes(), 'x');
  const auto digest = [&](const ExpertLayout& as) {
    return ExpertDigest::Of(as, RowsOf(as.View(image.data())));
  };
  const std::string before = digest(layout);
  EXPECT_EQ(before.size(), 64u);
  EXPECT_NE(digest(ExpertLayout({.d_model = 4, .d_ff = 6, .dtype = DType::kF16})), before);
  EXPECT_NE(digest(ExpertLayout({.d_model = 6, .d_ff = 4, .dtype = DType::kBF16})), before);
  for (size_t i = 0; i < image.size(); ++i) {
    image[i] ^= 1;
    EXPECT_NE(digest(layout), before) << i;
    image[i] ^= 1;
  }
  EXPECT_EQ(digest(layout), before);
}

// A folder with config.json and a manifest, and no weights.
class ExpertCatalogTest : public testing::Test {
 protected:
  void WriteFolder(const char* model, int n_slices = 8) {
    weights_ = *ModelWeights::Open(model, {n_slices});
    std::filesystem::copy_file(absl::StrCat(model, "/config.json"), dir_.File("config.json"),
                               std::filesystem::copy_options::overwrite_existing);
    manifest_ = ModelManifest::Make(*weights_, nullptr)->ToJson(weights_->config());
    dir_.Write(kManifestFile, manifest_);
  }
  void CopyWeights(const char* model) {
    std::filesystem::copy_file(absl::StrCat(model, "/model.safetensors"),
                               dir_.File("model.safetensors"));
  }
  void ExpectRefused(const std::string& from, const std::string& to, const std::string& message) {
    const std::string changed = absl::StrReplaceAll(manifest_, {{from, to}});
    ASSERT_NE(changed, manifest_);
    const auto parsed = ModelManifest::Parse(changed, "file", weights_->config());
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(message));
  }

  TempDir dir_;
  std::unique_ptr<ModelWeights> weights_;
  std::string manifest_;
};

TEST_F(ExpertCatalogTest, AManifestStandsForWeightsThatAreAbsent) {
  for (const char* model : {kSparse, kBiased}) {
    WriteFolder(model);
    const auto catalog = ExpertCatalog::Open(dir_.path(), {});
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    EXPECT_EQ((*catalog)->weights(), nullptr);
    EXPECT_EQ((*catalog)->model_fingerprint(), weights_->Fingerprint());
    EXPECT_EQ((*catalog)->dtype(), weights_->expert_dtype());
    for (int expert = 0; expert < weights_->config().experts_per_layer(); ++expert) {
      const ExpertWeightsView view = weights_->Expert(1, expert);
      EXPECT_EQ((*catalog)->Layout(1, expert), ExpertLayout::Of(view));
      EXPECT_EQ(*(*catalog)->Digest(1, expert),
                ExpertDigest::Of(ExpertLayout::Of(view), RowsOf(view)));
    }
  }
}

TEST_F(ExpertCatalogTest, WithoutWeightsAndManifestItSaysWhatIsMissing) {
  WriteFolder(kSparse);
  std::filesystem::remove(dir_.File(kManifestFile));
  const auto catalog = ExpertCatalog::Open(dir_.path(), {});
  EXPECT_EQ(catalog.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(catalog.status().message()), HasSubstr("gatefold inspect --manifest"));
}

TEST_F(ExpertCatalogTest, HalfADownloadIsNoFolderWithoutWeights) {
  WriteFolder(kSparse);
  dir_.Write("model-00001-of-00002.safetensors", "");
  EXPECT_FALSE(ExpertCatalog::Open(dir_.path(), {}).ok());
}

TEST_F(ExpertCatalogTest, AManifestOfOtherWeightsIsRefused) {
  WriteFolder(kSparse);
  CopyWeights(kSparse);
  const auto both = ExpertCatalog::Open(dir_.path(), {});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_NE((*both)->weights(), nullptr);
  EXPECT_TRUE((*both)->has_digests());
  dir_.Write(kManifestFile,
             absl::StrReplaceAll(manifest_, {{weights_->Fingerprint(), std::string(32, 'a')}}));
  const auto other = ExpertCatalog::Open(dir_.path(), {});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("make the file again"));
}

TEST_F(ExpertCatalogTest, AManifestIsOfOneNumberOfSlices) {
  WriteFolder(kBiased, 4);
  EXPECT_TRUE(ExpertCatalog::Open(dir_.path(), {4}).ok());
  const auto other = ExpertCatalog::Open(dir_.path(), {8});
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("--n-slices"));
}

TEST_F(ExpertCatalogTest, RefusesManifestsThatAreNone) {
  WriteFolder(kSparse);
  ASSERT_TRUE(ModelManifest::Parse(manifest_, "file", weights_->config()).ok());
  ExpectRefused("\"format\": 1", "\"format\": 2", "format must be 1");
  ExpectRefused("model_fingerprint\": \"", "model_fingerprint\": \"X",
                "model_fingerprint must be 32");
  ExpectRefused("\"model_fingerprint\"", "\"model\"", "model_fingerprint is missing");
  ExpectRefused("bfloat16", "int8", "expert_dtype must be float32");
  ExpectRefused("expert_sha256", "expert_sha1", "expert_sha256 must have 4 lists");
  const std::string digest =
      ModelManifest::Parse(manifest_, "file", weights_->config())->digests[9];
  ExpectRefused(digest, digest.substr(1), "expert_sha256[1] has something else");
  ExpectRefused(absl::StrCat("\"", digest, "\""), "7", "expert_sha256[1] has something else");
  ExpectRefused(absl::StrCat("\"", digest, "\","), "", "expert_sha256[1] must have 8 digests");
  for (const char* text : {"", "[]", "7", "{}", "{\"format\": 1}"}) {
    EXPECT_FALSE(ModelManifest::Parse(text, "file", weights_->config()).ok()) << text;
  }
}

}  // namespace
}  // namespace gatefold
