#include "gatefold/model/model_weights.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gatefold/checkpoint/safetensors_writer.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The tensors of a small model to write, changed by each test. Values count up over the whole
// model, so that every element is different.
struct Tensors {
  DType dtype = DType::kF32;
  std::map<std::string, DType> others;    // of those that have another
  std::map<std::string, int64_t> values;  // the first one of those that do not count on
  std::map<std::string, std::vector<int64_t>> shapes;
};

constexpr int kD = 4, kF = 6, kV = 10, kQ = 8, kKv = 4, kE = 3;

ModelConfig SmallConfig(bool sparse) {
  ModelConfig config;
  config.family = sparse ? "mixtral" : "llama";
  config.vocab_size = kV;
  config.d_model = kD;
  config.n_layers = 2;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 2;
  config.d_ff = kF;
  config.n_experts = sparse ? kE : 0;
  config.top_k = sparse ? 2 : 0;
  config.n_slices = sparse ? 0 : 4;
  config.norm_eps = 1e-5;
  config.max_positions = 64;
  return config;
}

Tensors SmallTensors(const ModelConfig& config) {
  Tensors t;
  t.shapes = {{"model.embed_tokens.weight", {kV, kD}},
              {"model.norm.weight", {kD}},
              {"lm_head.weight", {kV, kD}}};
  for (int layer = 0; layer < config.n_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    t.shapes[prefix + "input_layernorm.weight"] = {kD};
    t.shapes[prefix + "post_attention_layernorm.weight"] = {kD};
    t.shapes[prefix + "self_attn.q_proj.weight"] = {kQ, kD};
    t.shapes[prefix + "self_attn.k_proj.weight"] = {kKv, kD};
    t.shapes[prefix + "self_attn.v_proj.weight"] = {kKv, kD};
    t.shapes[prefix + "self_attn.o_proj.weight"] = {kD, kQ};
    if (config.attention_bias) {
      t.shapes[prefix + "self_attn.q_proj.bias"] = {kQ};
      t.shapes[prefix + "self_attn.k_proj.bias"] = {kKv};
      t.shapes[prefix + "self_attn.v_proj.bias"] = {kKv};
      t.shapes[prefix + "self_attn.o_proj.bias"] = {kD};
    }
    if (!config.sparse()) {
      t.shapes[prefix + "mlp.gate_proj.weight"] = {kF, kD};
      t.shapes[prefix + "mlp.up_proj.weight"] = {kF, kD};
      t.shapes[prefix + "mlp.down_proj.weight"] = {kD, kF};
      if (config.mlp_bias) {
        t.shapes[prefix + "mlp.gate_proj.bias"] = {kF};
        t.shapes[prefix + "mlp.up_proj.bias"] = {kF};
        t.shapes[prefix + "mlp.down_proj.bias"] = {kD};
      }
      continue;
    }
    const std::string moe = prefix + "block_sparse_moe.";
    t.shapes[moe + "gate.weight"] = {kE, kD};
    for (int e = 0; e < kE; ++e) {
      t.shapes[absl::StrCat(moe, "experts.", e, ".w1.weight")] = {kF, kD};
      t.shapes[absl::StrCat(moe, "experts.", e, ".w2.weight")] = {kD, kF};
      t.shapes[absl::StrCat(moe, "experts.", e, ".w3.weight")] = {kF, kD};
    }
  }
  return t;
}

void Write(const TempDir& dir, const Tensors& t) {
  std::vector<SafetensorsWriter::Tensor> tensors;
  const auto dtype_of = [&t](const std::string& name) {
    const auto other = t.others.find(name);
    return other == t.others.end() ? t.dtype : other->second;
  };
  for (const auto& [name, shape] : t.shapes) tensors.push_back({name, dtype_of(name), shape});
  auto writer = SafetensorsWriter::Create(dir.File("model.safetensors"), tensors);
  ASSERT_TRUE(writer.ok()) << writer.status();
  int64_t i = 0;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    const bool is_wide = tensor.dtype == DType::kF32;
    if (const auto first = t.values.find(tensor.name); first != t.values.end()) i = first->second;
    const int64_t end = i + TensorView{tensor.dtype, tensor.shape, nullptr}.n_elements();
    for (; i < end; ++i) {
      const float wide = static_cast<float>(i);
      const uint16_t narrow = static_cast<uint16_t>(i);
      const void* value = is_wide ? static_cast<const void*>(&wide) : &narrow;
      ASSERT_TRUE((*writer)->Append(value, is_wide ? 4 : 2).ok());
    }
  }
  ASSERT_TRUE((*writer)->Finish().ok());
}

absl::StatusOr<std::unique_ptr<ModelWeights>> Load(const ModelConfig& config, const Tensors& t) {
  TempDir dir;  // a mapping outlives its name
  Write(dir, t);
  auto checkpoint = Checkpoint::Open(dir.path());
  if (!checkpoint.ok()) return checkpoint.status();
  return ModelWeights::Create(config, *std::move(checkpoint));
}

std::unique_ptr<ModelWeights> MustLoad(const ModelConfig& config, const Tensors& t) {
  auto weights = Load(config, t);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return weights.ok() ? *std::move(weights) : nullptr;
}

float At(const MatrixView& m, int64_t row, int64_t col) {
  float value;
  std::memcpy(&value, static_cast<const char*>(m.data) + (row * m.row_stride + col) * 4, 4);
  return value;
}

std::vector<float> Values(const MatrixView& m) {
  std::vector<float> values;
  for (int64_t row = 0; row < m.n_rows; ++row) {
    for (int64_t col = 0; col < m.n_cols; ++col) values.push_back(At(m, row, col));
  }
  return values;
}

std::vector<float> Values(const TensorView& t) {
  std::vector<float> values(t.data == nullptr ? 0 : t.n_elements());
  if (!values.empty()) std::memcpy(values.data(), t.data, values.size() * 4);
  return values;
}

TEST(ModelWeights, OpensGoldenCheckpoints) {
  for (const char* dir : {"llama/f32", "llama3/f32", "mixtral/f32", "llama/bf16", "llama3/bf16",
                          "mixtral/bf16", "mixtral_sharded/bf16"}) {
    const auto weights = ModelWeights::Open(absl::StrCat("tests/golden/", dir));
    ASSERT_TRUE(weights.ok()) << dir << ": " << weights.status();
    EXPECT_EQ((*weights)->expert_dtype(), absl::EndsWith(dir, "bf16") ? DType::kBF16 : DType::kF32);
  }
}

TEST(ModelWeights, FingerprintIgnoresFilesAndSeesTypeAndSlices) {
  const auto print = [](const char* dir, int n_slices) {
    return (*ModelWeights::Open(absl::StrCat("tests/golden/", dir), {n_slices}))->Fingerprint();
  };
  EXPECT_EQ(print("mixtral/bf16", 8), print("mixtral_sharded/bf16", 8));
  EXPECT_NE(print("mixtral/bf16", 8), print("mixtral/f32", 8));
  EXPECT_NE(print("llama/f32", 8), print("llama/f32", 4));
  EXPECT_EQ(print("llama/f32", 8).size(), 32u);
}

TEST(ModelWeights, GivesEachPieceItsTensor) {
  const ModelConfig config = SmallConfig(/*sparse=*/true);
  const Tensors t = SmallTensors(config);
  TempDir dir;
  Write(dir, t);
  auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  const Checkpoint& raw = **checkpoint;
  const auto data = [&](const std::string& name) { return raw.Find(name)->data; };
  const auto weights = ModelWeights::Create(config, *std::move(checkpoint));
  ASSERT_TRUE(weights.ok()) << weights.status();
  const ModelWeights& w = **weights;
  EXPECT_EQ(w.embedding().data, data("model.embed_tokens.weight"));
  EXPECT_EQ(w.lm_head().data, data("lm_head.weight"));
  EXPECT_EQ(w.final_norm().data, data("model.norm.weight"));
  EXPECT_EQ(w.Attention(1).norm.data, data("model.layers.1.input_layernorm.weight"));
  EXPECT_EQ(w.Attention(1).q.data, data("model.layers.1.self_attn.q_proj.weight"));
  EXPECT_EQ(w.Attention(1).k.data, data("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_EQ(w.Attention(1).v.data, data("model.layers.1.self_attn.v_proj.weight"));
  EXPECT_EQ(w.Attention(1).o.data, data("model.layers.1.self_attn.o_proj.weight"));
  EXPECT_EQ(w.Attention(1).q_bias.data, nullptr);
  EXPECT_EQ(w.Router(0).norm.data, data("model.layers.0.post_attention_layernorm.weight"));
  EXPECT_EQ(w.Router(0).gate.data, data("model.layers.0.block_sparse_moe.gate.weight"));
  const ExpertWeightsView expert = w.Expert(1, 2);
  EXPECT_EQ(expert.w1.data, data("model.layers.1.block_sparse_moe.experts.2.w1.weight"));
  EXPECT_EQ(expert.w2.data, data("model.layers.1.block_sparse_moe.experts.2.w2.weight"));
  EXPECT_EQ(expert.w3.data, data("model.layers.1.block_sparse_moe.experts.2.w3.weight"));
  EXPECT_EQ(expert.w2.n_rows, kD);
  EXPECT_EQ(expert.w2.n_cols, kF);
}

TEST(ModelWeights, FusedExpertsHaveGateRowsFirst) {
  const ModelConfig config = SmallConfig(/*sparse=*/true);
  Tensors t = SmallTensors(config);
  for (auto it = t.shapes.begin(); it != t.shapes.end();) {
    it = absl::StrContains(it->first, "block_sparse_moe") ? t.shapes.erase(it) : std::next(it);
  }
  for (int layer = 0; layer < 2; ++layer) {
    const std::string mlp = absl::StrCat("model.layers.", layer, ".mlp.");
    t.shapes[mlp + "gate.weight"] = {kE, kD};
    t.shapes[mlp + "experts.gate_up_proj"] = {kE, 2 * kF, kD};
    t.shapes[mlp + "experts.down_proj"] = {kE, kD, kF};
  }
  const auto w = MustLoad(config, t);
  ASSERT_NE(w, nullptr);
  const ExpertWeightsView first = w->Expert(1, 0);
  const ExpertWeightsView second = w->Expert(1, 1);
  const float start = At(first.w1, 0, 0);
  EXPECT_EQ(At(first.w3, 0, 0), start + kF * kD);
  EXPECT_EQ(At(second.w1, 0, 0), start + 2 * kF * kD);
  EXPECT_EQ(At(second.w3, kF - 1, kD - 1), start + 4 * kF * kD - 1);
  EXPECT_EQ(At(second.w2, 0, 0), At(first.w2, 0, 0) + kD * kF);
  EXPECT_EQ(second.w1.n_rows, kF);
}

TEST(ModelWeights, NewerNamesOfSparseLayersAreAccepted) {
  const ModelConfig config = SmallConfig(/*sparse=*/true);
  Tensors t;
  for (const auto& [name, shape] : SmallTensors(config).shapes) {
    t.shapes[absl::StrReplaceAll(name, {{"block_sparse_moe", "mlp"}})] = shape;
  }
  EXPECT_NE(MustLoad(config, t), nullptr);
}

TEST(ModelWeights, SlicesCutRowsOfGateAndUpAndColumnsOfDown) {
  ModelConfig config = SmallConfig(/*sparse=*/false);
  config.mlp_bias = true;
  const Tensors t = SmallTensors(config);
  const auto sliced = MustLoad(config, t);
  config.n_slices = 1;
  const auto whole = MustLoad(config, t);
  ASSERT_NE(sliced, nullptr);
  ASSERT_NE(whole, nullptr);
  const ExpertWeightsView all = whole->Expert(1, 0);
  std::vector<float> w1, w3, b1, b3;
  int64_t column = 0;
  for (int slice = 0; slice < 4; ++slice) {
    const ExpertWeightsView part = sliced->Expert(1, slice);
    for (float v : Values(part.w1)) w1.push_back(v);
    for (float v : Values(part.w3)) w3.push_back(v);
    for (float v : Values(part.b1)) b1.push_back(v);
    for (float v : Values(part.b3)) b3.push_back(v);
    EXPECT_EQ(part.w2.row_stride, kF);
    EXPECT_EQ(part.w2.n_rows, kD);
    EXPECT_EQ(part.w2.n_cols, part.w1.n_rows);
    for (int64_t row = 0; row < kD; ++row) {
      for (int64_t c = 0; c < part.w2.n_cols; ++c) {
        EXPECT_EQ(At(part.w2, row, c), At(all.w2, row, column + c));
      }
    }
    column += part.w2.n_cols;
    EXPECT_EQ(part.b2.data != nullptr, slice == 0);
  }
  EXPECT_EQ(column, kF);
  EXPECT_EQ(w1, Values(all.w1));
  EXPECT_EQ(w3, Values(all.w3));
  EXPECT_EQ(b1, Values(all.b1));
  EXPECT_EQ(b3, Values(all.b3));
  EXPECT_EQ(Values(sliced->Expert(1, 0).b2), Values(all.b2));
}

TEST(DenseSlice, IsConsecutiveAndAsEqualAsPossible) {
  for (int d_ff : {1, 6, 176, 177, 11008}) {
    for (int n_slices : {1, 2, 3, 8, 176}) {
      if (n_slices > d_ff) continue;
      int next = 0;
      for (int slice = 0; slice < n_slices; ++slice) {
        const SliceRange range = DenseSlice(d_ff, n_slices, slice);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.end - range.begin, d_ff / n_slices);
        EXPECT_LE(range.end - range.begin, (d_ff + n_slices - 1) / n_slices);
        next = range.end;
      }
      EXPECT_EQ(next, d_ff);
    }
  }
}

TEST(ModelWeights, ReadsAttentionBiases) {
  ModelConfig config = SmallConfig(/*sparse=*/false);
  config.attention_bias = true;
  const auto w = MustLoad(config, SmallTensors(config));
  ASSERT_NE(w, nullptr);
  EXPECT_THAT(w->Attention(0).q_bias.shape, ElementsAre(kQ));
  EXPECT_THAT(w->Attention(0).k_bias.shape, ElementsAre(kKv));
  EXPECT_THAT(w->Attention(0).v_bias.shape, ElementsAre(kKv));
  EXPECT_THAT(w->Attention(0).o_bias.shape, ElementsAre(kD));
}

TEST(ModelWeights, TiedHeadIsTheEmbeddingWhateverTheFileHas) {
  ModelConfig config = SmallConfig(/*sparse=*/true);
  config.tie_word_embeddings = true;
  Tensors t = SmallTensors(config);
  auto w = MustLoad(config, t);
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->lm_head().data, w->embedding().data);
  const uint64_t n_parameters = w->n_parameters();
  t.shapes.erase("lm_head.weight");
  w = MustLoad(config, t);
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->n_parameters(), n_parameters);
}

// As it is written where of two names for one matrix the first in the alphabet is kept.
TEST(ModelWeights, TiedEmbeddingMayHaveTheNameOfTheHead) {
  ModelConfig config = SmallConfig(/*sparse=*/false);
  Tensors t = SmallTensors(config);
  t.shapes.erase("model.embed_tokens.weight");
  EXPECT_THAT(std::string(Load(config, t).status().message()),
              HasSubstr("model.embed_tokens.weight is missing"));
  config.tie_word_embeddings = true;
  const auto w = MustLoad(config, t);
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->lm_head().data, w->embedding().data);
  EXPECT_EQ(w->embedding().n_rows, kV);
}

TEST(ModelWeights, SaysWhenATiedModelHasAnotherHead) {
  ModelConfig config = SmallConfig(/*sparse=*/true);
  config.tie_word_embeddings = true;
  // changed: an element of the file's first tensor, which is the head.
  const auto says = [&config](const Tensors& t, int changed = -1) {
    TempDir dir;
    Write(dir, t);
    if (changed >= 0) {
      std::fstream file(dir.File("model.safetensors"), std::ios::in | std::ios::out);
      uint64_t header_bytes = 0;
      file.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
      file.seekp(
          static_cast<int64_t>(sizeof header_bytes + header_bytes + changed * sizeof(float)));
      file.put('!');
    }
    testing::internal::CaptureStderr();
    auto checkpoint = Checkpoint::Open(dir.path());
    EXPECT_TRUE(ModelWeights::Create(config, *std::move(checkpoint)).ok());
    return absl::StrContains(testing::internal::GetCapturedStderr(), "lm_head_ignored");
  };
  Tensors t = SmallTensors(config);
  EXPECT_TRUE(says(t));
  t.values = {{"lm_head.weight", 0}, {"model.embed_tokens.weight", 0}};
  EXPECT_FALSE(says(t));
  EXPECT_TRUE(says(t, /*changed=*/0));
  EXPECT_TRUE(says(t, /*changed=*/kV * kD - 1));
  t.shapes["lm_head.weight"] = {2 * kV, kD};
  EXPECT_TRUE(says(t));
  t.shapes.erase("lm_head.weight");
  EXPECT_FALSE(says(t));
}

TEST(ModelWeights, RefusesQkvOfTwoTypesByLayer) {
  const ModelConfig config = SmallConfig(/*sparse=*/true);
  for (const char* name : {"q", "k", "v"}) {
    Tensors t = SmallTensors(config);
    t.others[absl::StrCat("model.layers.1.self_attn.", name, "_proj.weight")] = DType::kBF16;
    const absl::Status status = Load(config, t).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("q_proj, k_proj and v_proj of layer 1"));
  }
}

TEST(ModelWeights, UntiedModelNeedsItsHead) {
  const ModelConfig config = SmallConfig(/*sparse=*/true);
  Tensors t = SmallTensors(config);
  t.shapes.erase("lm_head.weight");
  EXPECT_THAT(std::string(Load(config, t).status().message()),
              HasSubstr("tie_word_embeddings is false"));
}

TEST(ModelWeights, RefusesEveryMissingTensorByName) {
  for (const bool sparse : {false, true}) {
    ModelConfig config = SmallConfig(sparse);
    config.attention_bias = config.mlp_bias = !sparse;
    for (const auto& [name, shape] : SmallTensors(config).shapes) {
      Tensors t = SmallTensors(config);
      t.shapes.erase(name);
      const absl::Status status = Load(config, t).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
      EXPECT_THAT(std::string(status.message()), HasSubstr(name + " is missing"));
    }
  }
}

TEST(ModelWeights, RefusesEveryWrongShapeByName) {
  for (const bool sparse : {false, true}) {
    const ModelConfig config = SmallConfig(sparse);
    for (const auto& [name, shape] : SmallTensors(config).shapes) {
      Tensors t = SmallTensors(config);
      t.shapes[name].back() += 1;
      EXPECT_THAT(std::string(Load(config, t).status().message()), HasSubstr(name + " has shape"));
      t.shapes[name] = shape;
      t.shapes[name].push_back(1);
      EXPECT_THAT(std::string(Load(config, t).status().message()), HasSubstr(name + " has shape"));
    }
  }
}

TEST(ModelWeights, RefusesATensorItHasNoUseFor) {
  const ModelConfig config = SmallConfig(/*sparse=*/false);
  for (const char* name : {"model.layers.0.self_attn.q_norm.weight", "model.layers.2.extra",
                           "model.layers.0.self_attn.q_proj.bias", ""}) {
    Tensors t = SmallTensors(config);
    t.shapes[name] = {kD};
    const absl::Status status = Load(config, t).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("tensor ", name, " belongs")));
  }
}

TEST(ModelWeights, IgnoresKnownBuffers) {
  const ModelConfig config = SmallConfig(/*sparse=*/false);
  Tensors t = SmallTensors(config);
  t.shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = {1};
  t.shapes["model.rotary_emb.inv_freq"] = {1};
  t.shapes["h.0.attn.bias"] = {1};
  t.shapes["h.0.attn.masked_bias"] = {1};
  EXPECT_NE(MustLoad(config, t), nullptr);
}

TEST(ModelWeights, CountsBytesAndParametersByRole) {
  ModelConfig config = SmallConfig(/*sparse=*/true);
  Tensors t = SmallTensors(config);
  t.dtype = DType::kF16;
  const auto w = MustLoad(config, t);
  ASSERT_NE(w, nullptr);
  const uint64_t expert = 3 * kF * kD;
  const uint64_t attention = kD + 2 * kQ * kD + 2 * kKv * kD;
  const uint64_t router = kD + kE * kD;
  EXPECT_EQ(w->expert_dtype(), DType::kF16);
  EXPECT_EQ(w->ExpertBytes(1, 2), 2 * expert);
  EXPECT_EQ(w->role_bytes().experts, 2 * 2 * kE * expert);
  EXPECT_EQ(w->role_bytes().router, 2 * 2 * router);
  EXPECT_EQ(w->role_bytes().attention, 2 * (2 * attention + kD + 2 * kV * kD));
  EXPECT_EQ(w->n_parameters(), 2 * (attention + router + kE * expert) + kD + 2 * kV * kD);
  EXPECT_EQ(w->n_active_parameters(), 2 * (attention + router + 2 * expert) + kD + kV * kD);
  EXPECT_EQ(w->n_active_bytes(), 2 * w->n_active_parameters());
}

TEST(ModelWeights, SliceBytesAddUpToTheDenseMlp) {
  ModelConfig config = SmallConfig(/*sparse=*/false);
  config.mlp_bias = true;
  const auto w = MustLoad(config, SmallTensors(config));
  ASSERT_NE(w, nullptr);
  uint64_t sum = 0;
  for (int layer = 0; layer < 2; ++layer) {
    for (int slice = 0; slice < 4; ++slice) sum += w->ExpertBytes(layer, slice);
  }
  EXPECT_EQ(sum, w->role_bytes().experts);
  EXPECT_EQ(w->n_active_parameters(), w->n_parameters() - kV * kD);
}

TEST(ModelWeights, DroppedExpertReadsTheSameAgain) {
  const auto w = ModelWeights::Open("tests/golden/mixtral/f32");
  ASSERT_TRUE(w.ok());
  (*w)->PrefetchExpert(0, 1);
  const std::vector<float> before = Values((*w)->Expert(0, 1).w2);
  (*w)->DropExpert(0, 1);
  EXPECT_EQ(Values((*w)->Expert(0, 1).w2), before);
}

}  // namespace
}  // namespace gatefold
