#include "gatefold/kernels/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gatefold/base/check.h"
#include "gatefold/kernels/isa.h"

namespace gatefold::kernels {
namespace {

// exp(logits - max) in place, with the kernels' own exp.
void Exponentiate(std::vector<float>* logits, int n) {
  const float max = *std::max_element(logits->begin(), logits->begin() + n);
  for (float& logit : *logits) logit -= max;
  for (size_t i = 0; i < logits->size(); i += 16) {
    Kernels().exp16(logits->data() + i, logits->data() + i);
  }
}

}  // namespace

void GateTopK(const float* logits, int64_t n_rows, int n_experts, int top_k, int32_t* ids,
              float* weights) {
  GF_CHECK(top_k >= 1 && top_k <= n_experts);
  constexpr float kLeast = -std::numeric_limits<float>::max();
  std::vector<float> p((n_experts + 15) / 16 * 16);
  std::vector<int32_t> order(n_experts);
  for (int64_t row = 0; row < n_rows; ++row) {
    const float* l = logits + row * n_experts;
    for (int e = 0; e < n_experts; ++e) {
      p[e] = std::isnan(l[e]) ? kLeast : std::clamp(l[e], kLeast, -kLeast);
    }
    std::fill(p.begin() + n_experts, p.end(), kLeast);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(),
                      [&p](int32_t a, int32_t b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    Exponentiate(&p, n_experts);
    // The softmax's own denominator cancels in the division.
    float sum = 0;
    for (int k = 0; k < top_k; ++k) sum += p[order[k]];
    for (int k = 0; k < top_k; ++k) {
      ids[row * top_k + k] = order[k];
      weights[row * top_k + k] = p[order[k]] / sum;
    }
  }
}

}  // namespace gatefold::kernels
