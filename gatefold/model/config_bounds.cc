#include "gatefold/model/config_bounds.h"

#include <algorithm>
#include <iterator>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr int kMaxTokenId = (1 << 22) - 1;

// Several times past the largest published models, and small enough that no product of two of
// them leaves 64 bits and no array sized by one of them is a memory bomb.
constexpr IntBound kIntBounds[] = {
    {"vocab_size", 1, kMaxTokenId + 1, "16 MiB of float32 logits per row"},
    {"hidden_size", 1, 65536, "a row is at most 256 KiB"},
    {"num_hidden_layers", 1, 512, "four times the deepest published models"},
    {"num_attention_heads", 1, 1024, "eight times the widest published models"},
    {"num_key_value_heads", 1, 1024, "not more than query heads"},
    {"head_dim", 2, 1024, "attention keeps one head's row in L1"},
    {"intermediate_size", 1, 1 << 20, "a row inside an expert is at most 4 MiB"},
    {"num_local_experts", 1, 1024, "twice the most of published models"},
    {"num_experts_per_tok", 1, 64, "answers of one row are kept until the fold"},
    {"max_position_embeddings", 1, 1 << 24, "float32 counts positions exactly up to 2^24"},
    {"original_max_position_embeddings", 1, 1 << 24, "as max_position_embeddings"},
    {"sliding_window", 1, 1 << 24, "as max_position_embeddings"},
    {"bos_token_id", 0, kMaxTokenId, "a token id"},
    {"eos_token_id", 0, kMaxTokenId, "a token id"},
    {"top_k", 0, INT32_MAX, "0 is off"},
};

constexpr RealBound kRealBounds[] = {
    {"rms_norm_eps", 1e-20, 1e-1, "larger ones drown the row, zero divides by it"},
    {"rope_theta", 1.0001, 1e12, "the base of a falling series of frequencies"},
    {"factor", 1, 1e6, "a stretch of positions"},
    {"low_freq_factor", 1e-6, 1e6, "a ratio"},
    {"high_freq_factor", 1e-6, 1e6, "a ratio"},
    {"beta_fast", 1e-6, 1e6, "rotations within the original positions"},
    {"beta_slow", 1e-6, 1e6, "rotations within the original positions"},
    {"attention_factor", 1e-6, 1e3, "a scale of cosines and sines"},
    {"mscale", 0, 1e3, "a factor of a logarithm"},
    {"mscale_all_dim", 0, 1e3, "a factor of a logarithm"},
    {"temperature", 0, 100, "0 is greedy"},
    {"top_p", 0, 1, "a probability"},
    {"min_p", 0, 1, "a probability"},
    {"repetition_penalty", 1e-3, 100, "a divisor of logits; 1 is off"},
};

template <typename Bound, size_t n>
const Bound& Find(const Bound (&bounds)[n], absl::string_view key) {
  const auto found = std::find_if(std::begin(bounds), std::end(bounds),
                                  [&](const Bound& bound) { return key == bound.key; });
  GF_CHECK(found != std::end(bounds));
  return *found;
}

}  // namespace

const IntBound& IntBoundOf(absl::string_view key) { return Find(kIntBounds, key); }
const RealBound& RealBoundOf(absl::string_view key) { return Find(kRealBounds, key); }

}  // namespace gatefold
