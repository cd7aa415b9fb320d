#include "gatefold/model/model_weights.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/sha256.h"
#include "gatefold/model/family_tensors.h"
#include "gatefold/model/weight_binder.h"

namespace gatefold {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kLmHead[] = "lm_head.weight";

absl::Status CheckOneDType(absl::string_view what, DType dtype,
                           std::initializer_list<const MatrixView*> matrices) {
  for (const MatrixView* matrix : matrices) {
    if (matrix->dtype == dtype) continue;
    return absl::UnimplementedError(absl::StrCat(what, " of both ", DTypeName(dtype), " and ",
                                                 DTypeName(matrix->dtype), " are not supported"));
  }
  return absl::OkStatus();
}

// What is multiplied as one matrix or held as one kind has one type.
absl::Status CheckDTypes(const std::vector<AttentionLayerWeights>& attention,
                         const std::vector<ExpertWeightsView>& mlps, bool sparse) {
  for (size_t i = 0; i < attention.size(); ++i) {
    const AttentionLayerWeights& layer = attention[i];
    GF_RETURN_IF_ERROR(CheckOneDType(absl::StrCat("q_proj, k_proj and v_proj of layer ", i),
                                     layer.q.dtype, {&layer.k, &layer.v}));
  }
  for (const ExpertWeightsView& mlp : mlps) {
    GF_RETURN_IF_ERROR(
        CheckOneDType(sparse ? "experts" : "MLPs", mlps[0].w1.dtype, {&mlp.w1, &mlp.w3, &mlp.w2}));
  }
  return absl::OkStatus();
}

// Whether some rows of the two are the same, the first and the last among them.
bool LookAlike(const MatrixView& embedding, const TensorView& head) {
  if (head.dtype != embedding.dtype) return false;
  if (head.shape != std::vector<int64_t>{embedding.n_rows, embedding.n_cols}) return false;
  constexpr int64_t kSteps = 16;
  const size_t row_bytes = embedding.n_cols * DTypeBytes(embedding.dtype);
  for (int64_t i = 0; i <= kSteps; ++i) {
    const size_t at = (embedding.n_rows - 1) * i / kSteps * row_bytes;
    if (std::memcmp(static_cast<const char*>(embedding.data) + at,
                    static_cast<const char*>(head.data) + at, row_bytes) != 0) {
      return false;
    }
  }
  return true;
}

// The embedding is the head as well, whatever the file has; whoever trained another should know.
void WarnOfOtherHead(const MatrixView& embedding, const absl::StatusOr<TensorView>& head) {
  if (head.ok() && LookAlike(embedding, *head)) return;
  LogEvent(LogLevel::kWarning, "lm_head_ignored",
           {{"why", absl::StrCat("tie_word_embeddings is true, and ", kLmHead,
                                 " is not the same as ", kEmbedding)}});
}

uint64_t Elements(const MatrixView& m) {
  return m.data == nullptr ? 0 : static_cast<uint64_t>(m.n_rows * m.n_cols);
}
uint64_t Elements(const TensorView& t) {
  return t.data == nullptr ? 0 : static_cast<uint64_t>(t.n_elements());
}

// Counts numbers and bytes of the views it is given.
struct Tally {
  uint64_t elements = 0;
  uint64_t bytes = 0;

  template <typename... Views>
  void Add(const Views&... views) {
    ((elements += Elements(views), bytes += Elements(views) * DTypeBytes(views.dtype)), ...);
  }
  void Add(const AttentionLayerWeights& w) {
    Add(w.norm, w.q, w.k, w.v, w.o, w.q_bias, w.k_bias, w.v_bias, w.o_bias);
  }
  void Add(const RouterLayerWeights& w) { Add(w.norm, w.gate); }
  void Add(const ExpertWeightsView& w) { Add(w.w1, w.w3, w.w2, w.b1, w.b3, w.b2); }
};

TensorView Part(const TensorView& vector, const SliceRange& range) {
  if (vector.data == nullptr) return {};
  return TensorView{vector.dtype,
                    {range.end - range.begin},
                    static_cast<const char*>(vector.data) + range.begin * DTypeBytes(vector.dtype)};
}

// Of a slice's columns the whole rows.
size_t SpanBytes(const MatrixView& view) {
  if (view.n_rows == 0) return 0;
  return static_cast<size_t>((view.n_rows - 1) * view.row_stride + view.n_cols) *
         DTypeBytes(view.dtype);
}

}  // namespace

SliceRange DenseSlice(int d_ff, int n_slices, int slice) {
  GF_CHECK(n_slices > 0 && slice >= 0 && slice < n_slices);
  const int base = d_ff / n_slices;
  const int longer = d_ff % n_slices;
  const int begin = slice * base + std::min(slice, longer);
  return {begin, begin + base + (slice < longer ? 1 : 0)};
}

absl::StatusOr<std::unique_ptr<ModelWeights>> ModelWeights::Open(const std::string& dir,
                                                                 const ModelLoadOptions& options) {
  GF_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir, options));
  GF_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(dir));
  return Create(config, std::move(checkpoint));
}

absl::StatusOr<std::unique_ptr<ModelWeights>> ModelWeights::Create(
    const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint) {
  std::unique_ptr<ModelWeights> weights(new ModelWeights);
  weights->config_ = config;
  weights->checkpoint_ = std::move(checkpoint);
  GF_RETURN_IF_ERROR(Annotate(weights->Bind(), weights->checkpoint_->dir()));
  weights->CountBytes();
  return weights;
}

absl::Status ModelWeights::Bind() {
  WeightBinder binder(*checkpoint_);
  // A matrix that two names share may have been written under either.
  const bool named_as_head =
      config_.tie_word_embeddings && !binder.Has(kEmbedding) && binder.Has(kLmHead);
  embedding_ =
      binder.Matrix(named_as_head ? kLmHead : kEmbedding, config_.vocab_size, config_.d_model);
  for (int layer = 0; layer < config_.n_layers && binder.status().ok(); ++layer) {
    attention_.push_back(BindAttention(config_, layer, &binder));
    router_.push_back(BindRouter(config_, layer, &binder));
    BindMlps(config_, layer, &binder, &mlps_);
  }
  final_norm_ = binder.Vector("model.norm.weight", config_.d_model);
  if (config_.tie_word_embeddings) {
    lm_head_ = embedding_;
    binder.Ignore(kLmHead);
  } else {
    if (!binder.Has(kLmHead)) {
      binder.Refuse(absl::InvalidArgumentError(
          absl::StrCat("tensor ", kLmHead, " is missing and tie_word_embeddings is false")));
    }
    lm_head_ = binder.Matrix(kLmHead, config_.vocab_size, config_.d_model);
  }
  GF_RETURN_IF_ERROR(binder.status());
  GF_RETURN_IF_ERROR(binder.CheckNothingLeftOver());
  GF_RETURN_IF_ERROR(CheckDTypes(attention_, mlps_, config_.sparse()));
  if (config_.tie_word_embeddings && binder.Has(kLmHead)) {
    WarnOfOtherHead(embedding_, checkpoint_->Find(kLmHead));
  }
  expert_dtype_ = mlps_[0].w1.dtype;
  used_names_ = binder.TakeUsedNames();
  return absl::OkStatus();
}

void ModelWeights::CountBytes() {
  Tally attention, router, experts, one_layer;
  for (const AttentionLayerWeights& layer : attention_) attention.Add(layer);
  for (const RouterLayerWeights& layer : router_) router.Add(layer);
  for (const ExpertWeightsView& mlp : mlps_) experts.Add(mlp);
  attention.Add(final_norm_, lm_head_);
  // All experts are alike, and a dense layer's only MLP is visited whole.
  one_layer.Add(mlps_[0]);
  const uint64_t visited = config_.sparse() ? config_.top_k : 1;
  const uint64_t visits = visited * static_cast<uint64_t>(config_.n_layers);
  n_active_parameters_ = attention.elements + router.elements + visits * one_layer.elements;
  n_active_bytes_ = attention.bytes + router.bytes + visits * one_layer.bytes;
  if (!config_.tie_word_embeddings) attention.Add(embedding_);
  n_parameters_ = attention.elements + router.elements + experts.elements;
  role_bytes_ = {attention.bytes, router.bytes, experts.bytes};
}

ExpertWeightsView ModelWeights::Expert(int layer, int expert) const {
  GF_CHECK(layer >= 0 && layer < config_.n_layers);
  GF_CHECK(expert >= 0 && expert < config_.experts_per_layer());
  if (config_.sparse()) return mlps_[static_cast<size_t>(layer) * config_.n_experts + expert];
  const ExpertWeightsView& mlp = mlps_[layer];
  const SliceRange range = DenseSlice(config_.d_ff, config_.n_slices, expert);
  ExpertWeightsView slice;
  slice.w1 = mlp.w1.Rows(range.begin, range.end - range.begin);
  slice.w3 = mlp.w3.Rows(range.begin, range.end - range.begin);
  slice.w2 = mlp.w2.Columns(range.begin, range.end - range.begin);
  slice.b1 = Part(mlp.b1, range);
  slice.b3 = Part(mlp.b3, range);
  if (expert == 0) slice.b2 = mlp.b2;
  return slice;
}

uint64_t ModelWeights::ExpertBytes(int layer, int expert) const {
  Tally tally;
  tally.Add(Expert(layer, expert));
  return tally.bytes;
}

void ModelWeights::DropCopied(const MatrixView& view, LoadProgress* progress) {
  DropPages(view.data, SpanBytes(view));
  if (progress != nullptr) progress->Add(view.n_rows * view.n_cols * DTypeBytes(view.dtype));
}

void ModelWeights::PrefetchExpert(int layer, int expert) const {
  const ExpertWeightsView view = Expert(layer, expert);
  for (const MatrixView* matrix : {&view.w1, &view.w3, &view.w2}) {
    PrefetchPages(matrix->data, SpanBytes(*matrix));
  }
}

void ModelWeights::DropExpert(int layer, int expert) const {
  const ExpertWeightsView view = Expert(layer, expert);
  for (const MatrixView* matrix : {&view.w1, &view.w3, &view.w2}) {
    DropCopied(*matrix, nullptr);
  }
}

const std::string& ModelWeights::Fingerprint() const {
  absl::call_once(fingerprint_once_, [this] {
    Sha256 hash;
    hash.AddString(ConfigFingerprint(config_));
    hash.AddString(WeightDigest(*checkpoint_, used_names_));
    fingerprint_ = hash.FinishHex().substr(0, 32);
  });
  return fingerprint_;
}

}  // namespace gatefold
