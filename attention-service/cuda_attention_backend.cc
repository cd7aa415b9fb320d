#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention-service/attention_backend.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/cuda/attention_stack.h"
#include "gatefold/cuda/numerics_class.h"
#include "gatefold/cuda/rows.h"
#include "gatefold/cuda/sampling.h"
#include "gatefold/device/cuda_device.h"
#include "gatefold/device/cuda_status.h"
#include "gatefold/device/device_clock.h"
#include "gatefold/device/row_transfer.h"
#include "gatefold/kernels/to_floats.h"
#include "gatefold/model/rope.h"

namespace gatefold {
namespace {

cuda::HostMatrix ToHost(const MatrixView& view) {
  return {view.data, view.n_rows, view.n_cols, view.row_stride};
}

// Rows of a step on the device, and how to know them again: a step's layers come one by one, those
// of several lanes between each other.
struct HeldStep {
  std::vector<int32_t> key;
  cuda::AttentionStep step;
};

class CudaAttentionBackend final : public AttentionBackend {
 public:
  CudaAttentionBackend(const CudaDevice& device, uint64_t numerics, const ModelWeights* weights)
      : device_(device), numerics_(numerics), weights_(weights), config_(weights->config()) {}

  std::string name() const override { return "cuda"; }
  std::string device() const override { return device_.name; }
  uint64_t numerics_class() const override { return numerics_; }
  double device_seconds() const override { return clock_.seconds(); }
  HostMemory row_memory() const override { return PinnedMemory(); }
  KvShape kv_shape() const override {  // head_dim is a multiple of 16: no padding, as on the device
    return {config_.n_layers,
            {.n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim},
            sizeof(uint16_t)};
  }
  size_t memory_bytes() const override { return device_.free_bytes; }

  absl::Status Load(int n_kv_blocks, int max_positions, LoadProgress* progress) override;
  absl::Status EmbedAndAttend(absl::Span<const AttentionRow> rows,
                              absl::Span<const int32_t> token_ids, float* x) override {
    return CallStatus(Embed(rows, token_ids, x));
  }
  absl::Status Attend(int layer, absl::Span<const AttentionRow> rows, float* x) override {
    return CallStatus(AttendLayer(layer, rows, x));
  }
  absl::Status Logits(const float* x, absl::Span<const int32_t> rows, float* logits) override {
    return CallStatus(ComputeLogits(x, rows, logits));
  }
  bool draws() const override { return true; }
  absl::Status Draw(const float* x, absl::Span<const int32_t> rows,
                    absl::Span<const PlainDraw> draws, DrawnToken* drawn) override {
    return CallStatus(DrawTokens(x, rows, draws, drawn));
  }
  CudaStream* device_stream() override { return &stream_; }
  absl::Status KeepRowsOnDevice(int max_rows) override {
    GF_RETURN_IF_CUDA_ERROR(stack_->Reserve(max_rows, 0));
    rows_stay_ = true;
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kHeldSteps = 8;  // as many lanes need not send a step's rows twice

  absl::Status LoadLayer(int layer, cuda::WeightUpload* upload, LoadProgress* progress);
  absl::Status LoadRope(int max_positions, cuda::WeightUpload* upload);
  absl::Status Embed(absl::Span<const AttentionRow> rows, absl::Span<const int32_t> token_ids,
                     float* x);
  absl::Status AttendLayer(int layer, absl::Span<const AttentionRow> rows, float* x);
  absl::Status ComputeLogits(const float* x, absl::Span<const int32_t> rows, float* logits);
  absl::Status DrawTokens(const float* x, absl::Span<const int32_t> rows,
                          absl::Span<const PlainDraw> draws, DrawnToken* drawn);
  // Those rows of x on the device, next to each other.
  absl::StatusOr<const float*> Bring(const float* x, absl::Span<const int32_t> rows);
  // Sends the rows, in the place of those that were sent first. token_ids may be null.
  absl::StatusOr<const cuda::AttentionStep*> Send(absl::Span<const AttentionRow> rows,
                                                  const int32_t* token_ids);
  // What `launch` puts on the stream, timed; then `to` has what it left of `values` on the device.
  // what: for the message.
  template <typename Launch, typename T>
  absl::Status Compute(absl::string_view what, Launch launch, Transfer<T>* values, size_t n, T* to);
  // Those that are there, else as Send.
  absl::StatusOr<const cuda::AttentionStep*> Find(absl::Span<const AttentionRow> rows);

  const CudaDevice device_;
  const uint64_t numerics_;
  const ModelWeights* const weights_;
  const ModelConfig& config_;
  CudaStream stream_;
  std::unique_ptr<cuda::AttentionWeights> device_weights_;
  std::unique_ptr<cuda::AttentionStack> stack_;
  bool rows_stay_ = false;  // on the device: x is always there
  RowTransfer x_, logits_;
  Transfer<int32_t> row_numbers_;
  Transfer<cuda::SampleRow> draws_;
  Transfer<cuda::DrawnToken> drawn_;
  DeviceClock clock_;
  std::array<HeldStep, kHeldSteps> steps_;
  size_t next_step_ = 0;
};

// Runs of rows of one sequence.
std::vector<cuda::SequenceRows> ToSequences(absl::Span<const AttentionRow> rows) {
  std::vector<cuda::SequenceRows> sequences;
  for (const AttentionRow& row : rows) {
    if (!sequences.empty()) {
      cuda::SequenceRows& last = sequences.back();
      if (last.block_table == row.block_table &&
          last.first_position + last.n_rows == row.position) {
        ++last.n_rows;
        continue;
      }
    }
    sequences.push_back({row.block_table, row.position, 1});
  }
  return sequences;
}

// All that Upload reads but the token ids.
std::vector<int32_t> KeyOf(absl::Span<const cuda::SequenceRows> sequences) {
  std::vector<int32_t> key;
  for (const cuda::SequenceRows& rows : sequences) {
    const int n_blocks = (rows.first_position + rows.n_rows - 1) / KvShape::kBlockTokens + 1;
    key.push_back(rows.first_position);
    key.push_back(rows.n_rows);
    key.insert(key.end(), rows.block_table, rows.block_table + n_blocks);
  }
  return key;
}

cuda::AttentionModelShape ShapeOf(const ModelConfig& config, int max_positions) {
  return {.n_layers = config.n_layers,
          .vocab_size = config.vocab_size,
          .d_model = config.d_model,
          .norm_eps = static_cast<float>(config.norm_eps),
          .attention = {.n_heads = config.n_heads,
                        .n_kv_heads = config.n_kv_heads,
                        .head_dim = config.head_dim,
                        .window = config.sliding_window,
                        .scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim))},
          .max_positions = max_positions};
}

absl::Status CudaAttentionBackend::Load(int n_kv_blocks, int max_positions,
                                        LoadProgress* progress) {
  GF_RETURN_IF_ERROR(stream_.Prepare());
  device_weights_ = std::make_unique<cuda::AttentionWeights>(ShapeOf(config_, max_positions));
  cuda::WeightUpload upload;
  GF_RETURN_IF_CUDA_ERROR(upload.Prepare());
  GF_RETURN_IF_CUDA_ERROR(device_weights_->LoadEmbedding(ToHost(weights_->embedding()), &upload));
  ModelWeights::DropCopied(weights_->embedding(), progress);
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    GF_RETURN_IF_ERROR(LoadLayer(layer, &upload, progress));
  }
  const Buffer norm = ToFloats(weights_->final_norm());
  GF_RETURN_IF_CUDA_ERROR(
      device_weights_->LoadHead(norm.as<float>(), ToHost(weights_->lm_head()), &upload));
  // The embedding once more, where that is the head too.
  ModelWeights::DropCopied(weights_->lm_head(), config_.tie_word_embeddings ? nullptr : progress);
  GF_RETURN_IF_ERROR(LoadRope(max_positions, &upload));
  GF_RETURN_IF_CUDA_ERROR(upload.Finish());
  stack_ = std::make_unique<cuda::AttentionStack>(device_weights_.get(), n_kv_blocks);
  GF_RETURN_IF_CUDA_ERROR(stack_->Prepare());
  return absl::OkStatus();
}

absl::Status CudaAttentionBackend::LoadLayer(int layer, cuda::WeightUpload* upload,
                                             LoadProgress* progress) {
  const AttentionLayerWeights& views = weights_->Attention(layer);
  const Buffer norm = ToFloats(views.norm), o_bias = ToFloats(views.o_bias);
  std::vector<float> qkv_bias;
  if (views.q_bias.data != nullptr) {
    for (const TensorView* view : {&views.q_bias, &views.k_bias, &views.v_bias}) {
      const Buffer bias = ToFloats(*view);
      qkv_bias.insert(qkv_bias.end(), bias.as<float>(), bias.as<float>() + view->n_elements());
    }
  }
  const cuda::HostAttentionLayer host = {
      .norm = norm.as<float>(),
      .q = ToHost(views.q),
      .k = ToHost(views.k),
      .v = ToHost(views.v),
      .o = ToHost(views.o),
      .qkv_bias = qkv_bias.empty() ? nullptr : qkv_bias.data(),
      .o_bias = views.o_bias.data == nullptr ? nullptr : o_bias.as<float>()};
  GF_RETURN_IF_CUDA_ERROR(device_weights_->LoadLayer(layer, host, upload));
  for (const MatrixView* view : {&views.q, &views.k, &views.v, &views.o}) {
    ModelWeights::DropCopied(*view, progress);
  }
  return absl::OkStatus();
}

absl::Status CudaAttentionBackend::LoadRope(int max_positions, cuda::WeightUpload* upload) {
  const RopeFrequencies frequencies = ComputeRopeFrequencies(config_.rope, config_.head_dim);
  const size_t half = config_.head_dim / 2;
  std::vector<float> cos(max_positions * half), sin(cos.size());
  for (int p = 0; p < max_positions; ++p) RopeRow(frequencies, p, &cos[p * half], &sin[p * half]);
  GF_RETURN_IF_CUDA_ERROR(device_weights_->LoadRope(cos.data(), sin.data(), upload));
  return absl::OkStatus();
}

absl::StatusOr<const cuda::AttentionStep*> CudaAttentionBackend::Send(
    absl::Span<const AttentionRow> rows, const int32_t* token_ids) {
  HeldStep& held = steps_[next_step_];
  next_step_ = (next_step_ + 1) % kHeldSteps;
  const std::vector<cuda::SequenceRows> sequences = ToSequences(rows);
  held.key.clear();
  GF_RETURN_IF_CUDA_ERROR(stack_->Upload(sequences, token_ids, &held.step, stream_.get()));
  held.key = KeyOf(sequences);
  return &held.step;
}

absl::StatusOr<const cuda::AttentionStep*> CudaAttentionBackend::Find(
    absl::Span<const AttentionRow> rows) {
  const std::vector<int32_t> key = KeyOf(ToSequences(rows));
  for (const HeldStep& held : steps_) {
    if (held.key == key) return &held.step;
  }
  return Send(rows, nullptr);
}

template <typename Launch, typename T>
absl::Status CudaAttentionBackend::Compute(absl::string_view what, Launch launch,
                                           Transfer<T>* values, size_t n, T* to) {
  GF_RETURN_IF_ERROR(clock_.Start(stream_.get()));
  GF_RETURN_IF_ERROR(CudaStatus(launch(), what));
  GF_RETURN_IF_ERROR(clock_.Stop(stream_.get()));
  GF_RETURN_IF_ERROR(values->Fetch(n, to, stream_.get()));
  return clock_.Count();
}

absl::Status CudaAttentionBackend::Embed(absl::Span<const AttentionRow> rows,
                                         absl::Span<const int32_t> token_ids, float* x) {
  if (rows.empty()) return absl::OkStatus();
  const size_t n = rows.size() * config_.d_model;
  if (!rows_stay_) GF_RETURN_IF_ERROR(x_.Reserve(n));
  GF_ASSIGN_OR_RETURN(const cuda::AttentionStep* step, Send(rows, token_ids.data()));
  const auto embed = [&](float* to) { return stack_->EmbedAndAttend(*step, to, stream_.get()); };
  if (rows_stay_) return CudaStatus(embed(x), "EmbedAndAttend");
  return Compute(
      "EmbedAndAttend", [&] { return embed(x_.device()); }, &x_, n, x);
}

absl::Status CudaAttentionBackend::AttendLayer(int layer, absl::Span<const AttentionRow> rows,
                                               float* x) {
  if (rows.empty()) return absl::OkStatus();
  const size_t n = rows.size() * config_.d_model;
  if (!rows_stay_) GF_RETURN_IF_ERROR(x_.Send(x, n, stream_.get()));
  GF_ASSIGN_OR_RETURN(const cuda::AttentionStep* step, Find(rows));
  const auto attend = [&](float* to) { return stack_->Attend(layer, *step, to, stream_.get()); };
  if (rows_stay_) return CudaStatus(attend(x), "Attend");
  return Compute(
      "Attend", [&] { return attend(x_.device()); }, &x_, n, x);
}

absl::StatusOr<const float*> CudaAttentionBackend::Bring(const float* x,
                                                         absl::Span<const int32_t> rows) {
  const size_t n = rows.size(), d_model = config_.d_model;
  const auto gap = [](int32_t a, int32_t b) { return b != a + 1; };
  const bool together = std::adjacent_find(rows.begin(), rows.end(), gap) == rows.end();
  if (together) {
    const float* const first = x + rows.front() * d_model;
    if (rows_stay_) return first;
    GF_RETURN_IF_ERROR(x_.Send(first, n * d_model, stream_.get()));
  } else if (rows_stay_) {
    GF_RETURN_IF_ERROR(x_.Reserve(n * d_model));
    GF_RETURN_IF_ERROR(row_numbers_.Send(rows.data(), n, stream_.get()));
    GF_RETURN_IF_CUDA_ERROR(cuda::GatherRows(x, row_numbers_.device(), x_.device(),
                                             static_cast<int64_t>(n), config_.d_model,
                                             stream_.get()));
  } else {
    std::vector<float> gathered;
    for (int32_t row : rows) {
      gathered.insert(gathered.end(), x + row * d_model, x + (row + 1) * d_model);
    }
    GF_RETURN_IF_ERROR(x_.Send(gathered.data(), gathered.size(), stream_.get()));
  }
  return x_.device();
}

absl::Status CudaAttentionBackend::ComputeLogits(const float* x, absl::Span<const int32_t> rows,
                                                 float* logits) {
  if (rows.empty()) return absl::OkStatus();
  const size_t n_logits = rows.size() * config_.vocab_size;
  GF_RETURN_IF_ERROR(logits_.Reserve(n_logits));
  GF_ASSIGN_OR_RETURN(const float* from, Bring(x, rows));
  return Compute(
      "Logits",
      [&] {
        return stack_->Logits(from, static_cast<int>(rows.size()), logits_.device(), stream_.get());
      },
      &logits_, n_logits, logits);
}

absl::Status CudaAttentionBackend::DrawTokens(const float* x, absl::Span<const int32_t> rows,
                                              absl::Span<const PlainDraw> draws,
                                              DrawnToken* drawn) {
  const int n = static_cast<int>(rows.size());
  if (n == 0) return absl::OkStatus();
  std::vector<cuda::SampleRow> sample_rows;
  for (const PlainDraw& draw : draws) {
    sample_rows.push_back({.seed = draw.seed,
                           .position = draw.position,
                           .temperature = draw.temperature,
                           .top_k = draw.top_k,
                           .top_p = draw.top_p,
                           .min_p = draw.min_p});
  }
  GF_RETURN_IF_ERROR(logits_.Reserve(std::min(n, kMaxLogitRows) * size_t{1} * config_.vocab_size));
  GF_RETURN_IF_ERROR(drawn_.Reserve(n));
  GF_RETURN_IF_ERROR(draws_.Send(sample_rows.data(), n, stream_.get()));
  GF_ASSIGN_OR_RETURN(const float* from, Bring(x, rows));
  std::vector<cuda::DrawnToken> tokens(n);
  GF_RETURN_IF_ERROR(Compute(
      "Draw",
      [&] {
        for (int first = 0; first < n; first += kMaxLogitRows) {
          const int some = std::min(n - first, kMaxLogitRows);
          cudaError_t error = stack_->Logits(from + static_cast<int64_t>(first) * config_.d_model,
                                             some, logits_.device(), stream_.get());
          if (error == cudaSuccess) {
            error = cuda::Sample(logits_.device(), some, config_.vocab_size,
                                 draws_.device() + first, drawn_.device() + first, stream_.get());
          }
          if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
      },
      &drawn_, n, tokens.data()));
  for (int i = 0; i < n; ++i) {
    drawn[i] = {tokens[i].token, tokens[i].argmax, tokens[i].has_nan != 0};
  }
  return absl::OkStatus();
}

// The first matrix that is not bfloat16; null: there is none.
const MatrixView* OtherType(const ModelWeights& weights, const MatrixView& embedding,
                            const MatrixView& lm_head) {
  for (const MatrixView* view : {&embedding, &lm_head}) {
    if (view->dtype != DType::kBF16) return view;
  }
  for (int layer = 0; layer < weights.config().n_layers; ++layer) {
    const AttentionLayerWeights& views = weights.Attention(layer);
    for (const MatrixView* view : {&views.q, &views.k, &views.v, &views.o}) {
      if (view->dtype != DType::kBF16) return view;
    }
  }
  return nullptr;
}

absl::Status CheckModel(const ModelWeights& weights) {
  const MatrixView embedding = weights.embedding(), lm_head = weights.lm_head();
  if (const MatrixView* other = OtherType(weights, embedding, lm_head); other != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the cuda backend computes bfloat16 weights, attention of this model has ",
                     DTypeName(other->dtype)));
  }
  const ModelConfig& config = weights.config();
  if (!ShapeOf(config, 1).IsServed()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the cuda backend computes attention for head_dim 64 and 128, at most 16 heads per "
        "KV head, and d_model a multiple of 8; this model has head_dim ",
        config.head_dim, ", ", config.n_heads, " heads, ", config.n_kv_heads, " KV heads, d_model ",
        config.d_model));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const ModelWeights* weights, size_t kv_memory_bytes) {
  GF_ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice());
  GF_RETURN_IF_ERROR(CheckModel(*weights));
  const size_t weight_bytes = ShapeOf(weights->config(), 1).WeightBytes();
  GF_RETURN_IF_ERROR(
      CheckRoom(device, weight_bytes + kv_memory_bytes, "attention's weights and KV cache"));
  uint64_t numerics = 0;
  GF_RETURN_IF_CUDA_ERROR(cuda::AttentionNumericsClass(&numerics));
  return std::make_unique<CudaAttentionBackend>(device, numerics, weights);
}

}  // namespace gatefold
