#include "attention-service/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

namespace gatefold {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

struct Candidate {
  int32_t token;
  float logit;
};

// Likeliest first, ties to the lower id: a total order, so that every selection is unique.
bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// NaN would break the order; an impossible token does not.
float Ordered(float logit) { return std::isnan(logit) ? kNever : logit; }

// In lanes, which compilers turn into vectors: a vocabulary is long. NaN loses every comparison.
float Highest(absl::Span<const float> logits) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kNever);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t k = 0; k < kLanes; ++k)
      lanes[k] = logits[i + k] > lanes[k] ? logits[i + k] : lanes[k];
  }
  for (; i < logits.size(); ++i) lanes[0] = logits[i] > lanes[0] ? logits[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

// Whether what is banned until there are enough tokens still is.
bool IsBelowMin(const SamplingParams& params, int position) {
  return position + 1 - params.n_prompt_tokens < params.min_output_tokens;
}

void Penalise(const SamplingParams& params, absl::Span<const int32_t> tokens,
              std::vector<float>* logits) {
  if (!HasPenalties(params)) return;
  std::map<int32_t, int> output_counts;  // 0: in the prompt only
  for (size_t i = 0; i < tokens.size(); ++i) {
    output_counts[tokens[i]] += static_cast<int>(i) >= params.n_prompt_tokens ? 1 : 0;
  }
  for (const auto& [token, count] : output_counts) {
    if (token < 0 || token >= static_cast<int64_t>(logits->size())) continue;
    float& logit = (*logits)[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (count > 0) logit -= params.presence_penalty + params.frequency_penalty * count;
  }
}

void Ban(const std::vector<int32_t>& banned, std::vector<float>* logits) {
  for (int32_t token : banned) {
    if (token >= 0 && token < static_cast<int64_t>(logits->size())) (*logits)[token] = kNever;
  }
}

// What may be drawn, with weights relative to the likeliest token. Not sorted beyond `n_sorted`:
// sorting a whole vocabulary for every token would cost more than the step it belongs to.
class Lottery {
 public:
  Lottery(const std::vector<float>& logits, float temperature) {
    const float max = Ordered(logits[Argmax(logits)]);
    for (size_t i = 0; i < logits.size(); ++i) {
      const float logit = Ordered(logits[i]);
      if (logit == kNever) continue;
      const double relative = static_cast<double>(logit) - max;
      tickets_.push_back({{static_cast<int32_t>(i), logit}, std::exp(relative / temperature)});
    }
  }

  void KeepTopK(int top_k) {
    if (top_k <= 0 || top_k >= static_cast<int>(tickets_.size())) return;
    SortFirst(top_k);
    tickets_.resize(top_k);
  }

  // The shortest likeliest-first prefix whose weight reaches top_p of the total.
  void KeepTopP(float top_p) {
    if (top_p >= 1.0f) return;
    const double wanted = top_p * Total();
    double below = 0;
    size_t kept = 0;
    while (kept < tickets_.size() && (kept == 0 || below < wanted)) {
      if (kept >= n_sorted_) SortFirst(std::max<size_t>(256, 8 * kept));
      below += tickets_[kept++].weight;
    }
    tickets_.resize(kept);
  }

  void KeepMinP(float min_p) {
    std::erase_if(tickets_, [min_p](const Ticket& ticket) { return ticket.weight < min_p; });
  }

  int32_t Draw(double uniform) const {
    double left = uniform * Total();
    size_t drawn = 0;
    while (drawn + 1 < tickets_.size() && left >= tickets_[drawn].weight) {
      left -= tickets_[drawn++].weight;
    }
    return tickets_[drawn].candidate.token;
  }

 private:
  struct Ticket {
    Candidate candidate;
    double weight;
  };

  double Total() const {
    double total = 0;
    for (const Ticket& ticket : tickets_) total += ticket.weight;
    return total;
  }

  void SortFirst(size_t n) {
    n_sorted_ = std::min(n, tickets_.size());
    std::partial_sort(
        tickets_.begin(), tickets_.begin() + n_sorted_, tickets_.end(),
        [](const Ticket& a, const Ticket& b) { return Likelier(a.candidate, b.candidate); });
  }

  std::vector<Ticket> tickets_;
  size_t n_sorted_ = 0;
};

}  // namespace

double UniformAt(uint64_t seed, uint64_t position) {
  std::array<uint32_t, 4> counter = {static_cast<uint32_t>(position),
                                     static_cast<uint32_t>(position >> 32), 0, 0};
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  const uint64_t bits = (uint64_t{counter[0]} << 32) | counter[1];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

LogSum LogSumExp(absl::Span<const float> logits) {
  LogSum result;
  result.max = Highest(logits);
  double sum = 0;
  if (std::isinf(result.max)) {
    for (float logit : logits) sum += Ordered(logit) == result.max;
    result.log_sum = std::log(sum);
    return result;
  }
  for (float logit : logits) sum += std::exp(static_cast<double>(Ordered(logit)) - result.max);
  result.log_sum = result.max + std::log(sum);
  return result;
}

float Logprob(float logit, const LogSum& log_sum) {
  logit = Ordered(logit);
  if (!std::isinf(log_sum.max)) return static_cast<float>(logit - log_sum.log_sum);
  return logit == log_sum.max ? static_cast<float>(0 - log_sum.log_sum) : kNever;  // 0, not -0
}

bool HasNan(absl::Span<const float> logits) {
  int n = 0;
  for (float logit : logits) n += logit != logit;
  return n > 0;
}

int32_t Argmax(absl::Span<const float> logits) {
  const float highest = Highest(logits);
  // Without any number all of it is NaN or -inf: the first token.
  if (highest == kNever) return 0;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), highest) - logits.begin());
}

std::vector<std::pair<int32_t, float>> TopLogprobs(absl::Span<const float> logits, int n,
                                                   const LogSum& log_sum) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates[i] = {static_cast<int32_t>(i), Ordered(logits[i])};
  }
  const size_t keep = std::min<size_t>(std::max(n, 0), candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + keep, candidates.end(), Likelier);
  std::vector<std::pair<int32_t, float>> top;
  for (size_t i = 0; i < keep; ++i) {
    top.push_back({candidates[i].token, Logprob(candidates[i].logit, log_sum)});
  }
  return top;
}

bool DrawsFromPlainLogits(const SamplingParams& params, int position) {
  return !HasPenalties(params) && params.logit_bias.empty() && params.banned.empty() &&
         (params.banned_until_min.empty() || !IsBelowMin(params, position));
}

int32_t DrawToken(absl::Span<const float> logits, const SamplingParams& params,
                  absl::Span<const int32_t> tokens, int position) {
  std::vector<float> modified(logits.begin(), logits.end());
  Penalise(params, tokens, &modified);
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && token < static_cast<int64_t>(modified.size())) modified[token] += bias;
  }
  Ban(params.banned, &modified);
  if (IsBelowMin(params, position)) Ban(params.banned_until_min, &modified);

  const int32_t likeliest = Argmax(modified);
  // Beside an infinite logit nothing else has a weight, and without any possible token none has.
  if (params.temperature <= 0 || !std::isfinite(Ordered(modified[likeliest]))) return likeliest;
  Lottery lottery(modified, params.temperature);
  lottery.KeepTopK(params.top_k);
  lottery.KeepTopP(params.top_p);
  lottery.KeepMinP(params.min_p);
  return lottery.Draw(UniformAt(params.seed, static_cast<uint64_t>(position) + 1));
}

Sampled Describe(absl::Span<const float> logits, const SamplingParams& params, int32_t token) {
  Sampled sampled;
  sampled.token = token;
  sampled.argmax = Argmax(logits);
  if (!params.want_logprob && params.n_top_logprobs == 0) return sampled;
  const LogSum log_sum = LogSumExp(logits);
  sampled.logprob = Logprob(logits[token], log_sum);
  if (params.n_top_logprobs > 0) sampled.top = TopLogprobs(logits, params.n_top_logprobs, log_sum);
  return sampled;
}

}  // namespace gatefold
