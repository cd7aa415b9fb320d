#include "attention-service/attention_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention-service/sampler.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/kernels/attention.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"

namespace gatefold {
namespace {

// Rows whose logits are held at a time: a vocabulary is wide, and a scored prompt long.
constexpr size_t kLogitRows = 32;

absl::Status OutOfRange(const StepSpan& span, int held, int n_positions) {
  return absl::InvalidArgumentError(
      absl::StrCat("sequence ", span.sequence, ": positions ", span.first_position, " to ",
                   span.first_position + span.n_tokens - 1, " do not follow the ", held,
                   " it holds, or exceed the ", n_positions, " it may have"));
}

}  // namespace

absl::StatusOr<std::vector<CachedSequence*>> AttentionRunner::FindToEmbed(
    SequenceTable* sequences, absl::Span<const StepSpan> spans,
    absl::Span<const int32_t> token_ids) const {
  const int vocab_size = model_->config().vocab_size;
  for (int32_t token : token_ids) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not within 0 and ", vocab_size - 1));
    }
  }
  std::vector<CachedSequence*> cached;
  const int32_t* token_id = token_ids.data();
  for (const StepSpan& span : spans) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->Find(span.sequence));
    const int held = static_cast<int>(sequence->tokens.size());
    if (span.first_position > held ||
        span.first_position + static_cast<int64_t>(span.n_tokens) > sequence->n_positions) {
      return OutOfRange(span, held, sequence->n_positions);
    }
    const int n_known = static_cast<int>(sequence->known.size()) * KvShape::kBlockTokens;
    for (int p = span.first_position; p < span.first_position + span.n_tokens; ++p, ++token_id) {
      if (p < n_known && *token_id != sequence->tokens[p]) {
        return absl::InvalidArgumentError(
            absl::StrCat("sequence ", span.sequence, ": token id ", *token_id, " at position ", p,
                         ", where it has ", sequence->tokens[p], " already"));
      }
    }
    cached.push_back(sequence);
  }
  std::vector<CachedSequence*> sorted = cached;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    return absl::InvalidArgumentError("spans has a sequence twice");
  }
  return cached;
}

absl::Status AttentionRunner::EmbedAndAttend(SequenceTable* sequences,
                                             absl::Span<const StepSpan> spans,
                                             absl::Span<const int32_t> token_ids, float* x,
                                             std::vector<SequenceId>* starved) {
  GF_ASSIGN_OR_RETURN(const std::vector<CachedSequence*> cached,
                      FindToEmbed(sequences, spans, token_ids));
  absl::Status grown;
  for (size_t i = 0; i < spans.size(); ++i) {
    const int end = spans[i].first_position + spans[i].n_tokens;
    if (absl::Status status = sequences->Grow(cached[i], end); !status.ok()) {
      starved->push_back(spans[i].sequence);
      grown = status;
    }
  }
  if (!grown.ok()) return grown;
  std::vector<Row> rows;
  for (size_t i = 0; i < spans.size(); ++i) {
    std::vector<int32_t>& tokens = cached[i]->tokens;
    for (int p = spans[i].first_position; p < spans[i].first_position + spans[i].n_tokens; ++p) {
      const int32_t token = token_ids[rows.size()];
      model_->Embed(token, x + rows.size() * model_->config().d_model);
      rows.push_back({p, cached[i]->blocks.data()});
      // A step that is run again brings the same tokens.
      if (p < static_cast<int>(tokens.size()) && tokens[p] != token) {
        tokens.resize(p);
        cached[i]->n_complete = std::min(cached[i]->n_complete, p);
      }
      if (p == static_cast<int>(tokens.size())) tokens.push_back(token);
    }
  }
  AttendRows(0, rows, x);
  for (size_t i = 0; i < spans.size(); ++i) sequences->LayerDone(cached[i], spans[i], 0);
  return absl::OkStatus();
}

absl::Status AttentionRunner::Attend(SequenceTable* sequences, int layer,
                                     absl::Span<const StepSpan> spans, float* x) {
  if (layer < 0 || layer >= model_->config().n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " is not within 0 and ", model_->config().n_layers - 1));
  }
  std::vector<Row> rows;
  std::vector<CachedSequence*> cached;
  for (const StepSpan& span : spans) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->Find(span.sequence));
    cached.push_back(sequence);
    const int held = static_cast<int>(sequence->tokens.size());
    if (span.first_position + static_cast<int64_t>(span.n_tokens) > held) {
      return OutOfRange(span, held, sequence->n_positions);
    }
    for (int i = 0; i < span.n_tokens; ++i) {
      rows.push_back({span.first_position + i, sequence->blocks.data()});
    }
  }
  AttendRows(layer, rows, x);
  for (size_t i = 0; i < spans.size(); ++i) sequences->LayerDone(cached[i], spans[i], layer);
  return absl::OkStatus();
}

void AttentionRunner::AttendRows(int layer, absl::Span<const Row> rows, float* x) {
  absl::MutexLock lock(&compute_mu_);
  Reserve(rows.size());
  const ModelConfig& config = model_->config();
  const AttentionModel::Layer& weights = model_->layer(layer);
  const int64_t n = static_cast<int64_t>(rows.size());
  kernels::RmsNorm(x, weights.norm.as<float>(), static_cast<float>(config.norm_eps), h_.as<float>(),
                   n, config.d_model, threads_);
  kernels::MatMul(weights.qkv, h_.as<float>(), qkv_.as<float>(), n, threads_,
                  weights.qkv_bias.as<float>());
  RotateAndAppend(layer, rows);
  std::vector<kernels::AttentionRow> queries;
  for (int64_t i = 0; i < n; ++i) {
    queries.push_back({qkv_.as<float>() + i * weights.qkv.n_out(),
                       heads_.as<float>() + i * config.q_width(), rows[i].position,
                       rows[i].block_table});
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  kernels::Attention(kv_->shape().layout, config.n_heads, config.sliding_window, scale,
                     kv_->Keys(layer), kv_->Values(layer), queries, threads_);
  kernels::MatMul(weights.o, heads_.as<float>(), h_.as<float>(), n, threads_,
                  weights.o_bias.as<float>());
  kernels::AddTo(h_.as<float>(), x, n * config.d_model);
}

void AttentionRunner::RotateAndAppend(int layer, absl::Span<const Row> rows) {
  const ModelConfig& config = model_->config();
  const int width = config.q_width() + 2 * config.kv_width();
  float* const qkv = qkv_.as<float>();
  const auto rotate = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int position = rows[i].position;
      float* q = qkv + i * width;
      float* k = q + config.q_width();
      const float* cos = model_->rope().cos(position);
      const float* sin = model_->rope().sin(position);
      kernels::Rope(q, config.n_heads, config.head_dim, cos, sin);
      kernels::Rope(k, config.n_kv_heads, config.head_dim, cos, sin);
      kernels::AppendKv(kv_->shape().layout, k, k + config.kv_width(), position,
                        rows[i].block_table, kv_->Keys(layer), kv_->Values(layer));
    }
  };
  const int64_t n = static_cast<int64_t>(rows.size());
  // Whole blocks per thread: neighbours write to the same cache lines of the keys.
  ParallelFor(n >= 64 ? threads_ : nullptr, n, 32, rotate);
}

absl::StatusOr<std::vector<Sampled>> AttentionRunner::Sample(
    SequenceTable* sequences, absl::Span<const SampleRequest> samples, const float* x) {
  const ModelConfig& config = model_->config();
  std::vector<const CachedSequence*> cached;
  for (const SampleRequest& sample : samples) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->Find(sample.sequence));
    if (sample.position < 0 || sample.position >= static_cast<int>(sequence->tokens.size())) {
      return OutOfRange({sample.sequence, sample.position, 1},
                        static_cast<int>(sequence->tokens.size()), sequence->n_positions);
    }
    if (sample.target < -1 || sample.target >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "target token id ", sample.target, " is not within 0 and ", config.vocab_size - 1));
    }
    cached.push_back(sequence);
  }
  absl::MutexLock lock(&compute_mu_);
  Reserve(std::min(samples.size(), kLogitRows));
  if (logits_.size_bytes() == 0) logits_ = Buffer(kLogitRows * config.vocab_size * sizeof(float));
  std::vector<Sampled> sampled(samples.size());
  for (size_t first = 0; first < samples.size(); first += kLogitRows) {
    const size_t n = std::min(kLogitRows, samples.size() - first);
    kernels::RmsNorm(x + first * config.d_model, model_->final_norm(),
                     static_cast<float>(config.norm_eps), h_.as<float>(), n, config.d_model);
    kernels::MatMul(model_->lm_head(), h_.as<float>(), logits_.as<float>(), n, threads_);
    const float* logits = logits_.as<float>();
    ParallelFor(threads_, n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        sampled[first + i] =
            SampleRow(*cached[first + i], samples[first + i],
                      absl::MakeConstSpan(logits + i * config.vocab_size, config.vocab_size));
      }
    });
  }
  return sampled;
}

Sampled AttentionRunner::SampleRow(const CachedSequence& sequence, const SampleRequest& request,
                                   absl::Span<const float> logits) const {
  Sampled sampled;
  if (request.score) {
    const LogSum log_sum = LogSumExp(logits);
    sampled.token = request.target;
    sampled.argmax = Argmax(logits);
    if (request.target >= 0) {
      sampled.logprob = static_cast<float>(logits[request.target] - log_sum.log_sum);
    }
    if (request.n_top_logprobs > 0) {
      sampled.top = TopLogprobs(logits, request.n_top_logprobs, log_sum);
    }
  } else {
    sampled = gatefold::Sample(logits, sequence.sampling,
                               absl::MakeConstSpan(sequence.tokens).first(request.position + 1),
                               request.position);
  }
  if (request.want_logits) sampled.logits.assign(logits.begin(), logits.end());
  sampled.not_a_number = HasNan(logits);
  return sampled;
}

void AttentionRunner::Reserve(size_t n_rows) {
  if (n_rows <= capacity_rows_) return;
  const ModelConfig& config = model_->config();
  h_ = Buffer(n_rows * config.d_model * sizeof(float));
  qkv_ = Buffer(n_rows * (config.q_width() + 2 * config.kv_width()) * sizeof(float));
  heads_ = Buffer(n_rows * config.q_width() * sizeof(float));
  capacity_rows_ = n_rows;
}

}  // namespace gatefold
