#include "attention-service/attention_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention-service/sampler.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

// Rows whose logits are held at a time: a scored prompt is long.
constexpr size_t kLogitRows = AttentionBackend::kMaxLogitRows;

bool WantsLogprobs(const SamplingParams& sampling) {
  return sampling.want_logprob || sampling.n_top_logprobs > 0;
}

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
  const int vocab_size = config_.vocab_size;
  for (int32_t token : token_ids) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not within 0 and ", vocab_size - 1));
    }
  }
  const uint64_t call = sequences->NextCall();
  std::vector<CachedSequence*> cached;
  const int32_t* token_id = token_ids.data();
  for (const StepSpan& span : spans) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->FindOnce(span.sequence, call));
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
  std::vector<AttentionRow> rows;
  for (size_t i = 0; i < spans.size(); ++i) {
    std::vector<int32_t>& tokens = cached[i]->tokens;
    for (int p = spans[i].first_position; p < spans[i].first_position + spans[i].n_tokens; ++p) {
      const int32_t token = token_ids[rows.size()];
      rows.push_back({p, cached[i]->blocks.data()});
      // A step that is run again brings the same tokens.
      if (p < static_cast<int>(tokens.size()) && tokens[p] != token) {
        tokens.resize(p);
        cached[i]->n_complete = std::min(cached[i]->n_complete, p);
      }
      if (p == static_cast<int>(tokens.size())) tokens.push_back(token);
    }
  }
  {
    absl::MutexLock lock(&compute_mu_);
    GF_RETURN_IF_ERROR(backend_->EmbedAndAttend(rows, token_ids, x));
  }
  for (size_t i = 0; i < spans.size(); ++i) sequences->LayerDone(cached[i], spans[i], 0);
  return absl::OkStatus();
}

absl::Status AttentionRunner::Attend(SequenceTable* sequences, int layer,
                                     absl::Span<const StepSpan> spans, float* x) {
  if (layer < 0 || layer >= config_.n_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " is not within 0 and ", config_.n_layers - 1));
  }
  const uint64_t call = sequences->NextCall();
  std::vector<AttentionRow> rows;
  std::vector<CachedSequence*> cached;
  for (const StepSpan& span : spans) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->FindOnce(span.sequence, call));
    cached.push_back(sequence);
    const int held = static_cast<int>(sequence->tokens.size());
    if (span.first_position + static_cast<int64_t>(span.n_tokens) > held) {
      return OutOfRange(span, held, sequence->n_positions);
    }
    for (int i = 0; i < span.n_tokens; ++i) {
      rows.push_back({span.first_position + i, sequence->blocks.data()});
    }
  }
  {
    absl::MutexLock lock(&compute_mu_);
    GF_RETURN_IF_ERROR(backend_->Attend(layer, rows, x));
  }
  for (size_t i = 0; i < spans.size(); ++i) sequences->LayerDone(cached[i], spans[i], layer);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Sampled>> AttentionRunner::Sample(
    SequenceTable* sequences, absl::Span<const SampleRequest> samples, const float* x) {
  std::vector<const CachedSequence*> cached;
  for (const SampleRequest& sample : samples) {
    GF_ASSIGN_OR_RETURN(CachedSequence * sequence, sequences->Find(sample.sequence));
    if (sample.position < 0 || sample.position >= static_cast<int>(sequence->tokens.size())) {
      return OutOfRange({sample.sequence, sample.position, 1},
                        static_cast<int>(sequence->tokens.size()), sequence->n_positions);
    }
    if (sample.target < -1 || sample.target >= config_.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "target token id ", sample.target, " is not within 0 and ", config_.vocab_size - 1));
    }
    cached.push_back(sequence);
  }
  // What becomes of a row depends on its own request alone, never on those beside it.
  std::vector<int32_t> drawn, looked_at;
  for (size_t i = 0; i < samples.size(); ++i) {
    const SamplingParams& sampling = cached[i]->sampling;
    const bool draws = backend_->draws() && !samples[i].score &&
                       DrawsFromPlainLogits(sampling, samples[i].position);
    const int32_t row = static_cast<int32_t>(i);
    if (draws) drawn.push_back(row);
    if (!draws || samples[i].want_logits || WantsLogprobs(sampling)) looked_at.push_back(row);
  }
  std::vector<Sampled> sampled(samples.size());
  absl::MutexLock lock(&compute_mu_);
  GF_RETURN_IF_ERROR(DrawOnBackend(cached, samples, drawn, x, &sampled));
  GF_RETURN_IF_ERROR(LookAtLogits(cached, samples, looked_at, x, &sampled));
  return sampled;
}

absl::Status AttentionRunner::DrawOnBackend(absl::Span<const CachedSequence* const> sequences,
                                            absl::Span<const SampleRequest> samples,
                                            absl::Span<const int32_t> which, const float* x,
                                            std::vector<Sampled>* sampled) {
  if (which.empty()) return absl::OkStatus();
  std::vector<PlainDraw> draws;
  for (int32_t i : which) {
    const SamplingParams& sampling = sequences[i]->sampling;
    draws.push_back({.seed = sampling.seed,
                     .position = samples[i].position,
                     .temperature = sampling.temperature,
                     .top_k = sampling.top_k,
                     .top_p = sampling.top_p,
                     .min_p = sampling.min_p});
  }
  std::vector<DrawnToken> drawn(which.size());
  GF_RETURN_IF_ERROR(backend_->Draw(x, which, draws, drawn.data()));
  for (size_t i = 0; i < which.size(); ++i) {
    Sampled& to = (*sampled)[which[i]];
    to.token = drawn[i].token;
    to.argmax = drawn[i].argmax;
    to.not_a_number = drawn[i].not_a_number;
  }
  return absl::OkStatus();
}

absl::Status AttentionRunner::LookAtLogits(absl::Span<const CachedSequence* const> sequences,
                                           absl::Span<const SampleRequest> samples,
                                           absl::Span<const int32_t> which, const float* x,
                                           std::vector<Sampled>* sampled) {
  if (logits_.size_bytes() == 0 && !which.empty()) {
    logits_ = Buffer(kLogitRows * config_.vocab_size * sizeof(float));
  }
  for (size_t first = 0; first < which.size(); first += kLogitRows) {
    const absl::Span<const int32_t> some = which.subspan(first, kLogitRows);
    GF_RETURN_IF_ERROR(backend_->Logits(x, some, logits_.as<float>()));
    const float* logits = logits_.as<float>();
    ParallelFor(threads_, some.size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Sampled& to = (*sampled)[some[i]];
        to = SampleRow(*sequences[some[i]], samples[some[i]],
                       absl::MakeConstSpan(logits + i * config_.vocab_size, config_.vocab_size),
                       to.token);
      }
    });
  }
  return absl::OkStatus();
}

Sampled AttentionRunner::SampleRow(const CachedSequence& sequence, const SampleRequest& request,
                                   absl::Span<const float> logits, int32_t token) const {
  Sampled sampled;
  if (request.score) {
    const LogSum log_sum = LogSumExp(logits);
    sampled.token = request.target;
    sampled.argmax = Argmax(logits);
    if (request.target >= 0) sampled.logprob = Logprob(logits[request.target], log_sum);
    if (request.n_top_logprobs > 0) {
      sampled.top = TopLogprobs(logits, request.n_top_logprobs, log_sum);
    }
  } else {
    if (token < 0) {
      token = DrawToken(logits, sequence.sampling,
                        absl::MakeConstSpan(sequence.tokens).first(request.position + 1),
                        request.position);
    }
    sampled = Describe(logits, sequence.sampling, token);
  }
  if (request.want_logits) sampled.logits.assign(logits.begin(), logits.end());
  sampled.not_a_number = HasNan(logits);
  return sampled;
}

}  // namespace gatefold
