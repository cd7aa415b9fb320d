// What a router computes of rows, on the device: the bits of gatefold/kernels, whose order of operations
// is written out here once more, lane by lane.

#include "gatefold/cuda/router_rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {
namespace {

constexpr float kEps = 1e-5f;

class RouterRowsTest : public GpuTest {};

float SumLanes(std::vector<float> lanes) {
  for (int half = 8; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) lanes[j] = lanes[j] + lanes[j + half];
  }
  return lanes[0];
}

std::vector<float> Norm(const std::vector<float>& x, const std::vector<float>& weight) {
  const size_t d = weight.size();
  std::vector<float> y;
  for (size_t row = 0; row < x.size(); row += d) {
    std::vector<float> squares(16);
    for (size_t i = 0; i < d; ++i) {
      squares[i % 16] = std::fma(x[row + i], x[row + i], squares[i % 16]);
    }
    const float scale = 1.0f / std::sqrt(SumLanes(squares) / static_cast<float>(d) + kEps);
    for (size_t i = 0; i < d; ++i) {
      const float scaled = x[row + i] * scale;
      y.push_back(scaled * weight[i]);
    }
  }
  return y;
}

std::vector<float> Logits(const std::vector<float>& h, const std::vector<float>& gate, size_t d) {
  std::vector<float> logits;
  for (size_t row = 0; row < h.size(); row += d) {
    for (size_t expert = 0; expert < gate.size(); expert += d) {
      std::vector<float> lanes(16);
      for (size_t i = 0; i < d; ++i) {
        float& lane = lanes[i % 32 / 2];
        lane = std::fma(h[row + i], gate[expert + i], lane);
      }
      logits.push_back(SumLanes(lanes));
    }
  }
  return logits;
}

float Exp(float x) {
  x = std::min(88.3f, std::max(-87.3f, x));
  const float t = std::fma(x, 1.44269504f, 12582912.0f), n = t - 12582912.0f;
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x));
  float p = 1.0f / 5040;
  for (float next : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = std::fma(p, r, next);
  }
  return p * std::ldexp(1.0f, static_cast<int>(n));
}

struct Chosen {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};
Chosen TopK(const std::vector<float>& logits, int n_experts, int top_k) {
  Chosen chosen;
  for (size_t row = 0; row < logits.size(); row += n_experts) {
    std::vector<float> p(logits.begin() + row, logits.begin() + row + n_experts);
    for (float& one : p) one = std::isnan(one) ? -FLT_MAX : std::clamp(one, -FLT_MAX, FLT_MAX);
    std::vector<int32_t> order(n_experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
    order.resize(top_k);
    const float most = p[order[0]];
    float sum = 0;
    for (int e : order) sum += Exp(p[e] - most);
    std::sort(order.begin(), order.end());
    for (int e : order) {
      chosen.experts.push_back(e);
      chosen.weights.push_back(Exp(p[e] - most) / sum);
    }
  }
  return chosen;
}

TEST_F(RouterRowsTest, NormHasTheBitsOfTheCpu) {
  // The last two need more shared memory than a kernel has unasked.
  for (int64_t d : {8, 64, 1000, 1032, 4096, 12296, 24576}) {
    const std::vector<float> x = RandomFloats(3 * d, 1, d), weight = RandomFloats(d, 1, d + 1);
    const DeviceArray<float> x_device(x), weight_device(weight), h(x.size());
    EXPECT_CUDA(RouterNorm(x_device.get(), weight_device.get(), kEps, h.get(), 3, d, nullptr));
    EXPECT_EQ(FirstDifference(h.Read(), Norm(x, weight)), -1) << d;
  }
}

TEST_F(RouterRowsTest, LogitsHaveTheBitsOfTheCpu) {
  // As much as shared memory has unasked, more, and more than it has.
  for (int64_t d : {8, 72, 1032, 2048, 6152, 12296}) {
    for (int n_experts : {1, 8, 61}) {
      if (d * n_experts > 128'000) continue;  // an emulated device takes long
      const std::vector<float> gate = RandomFloats(n_experts * d, 1, n_experts);
      const DeviceArray<float> gate_device(gate);
      for (int64_t n_rows : {1, 3, 33, 50, 300}) {  // few and many
        if (d * n_rows > 620'000) continue;
        const std::vector<float> h = RandomFloats(n_rows * d, 1, d);
        const DeviceArray<float> h_device(h), logits(n_rows * n_experts);
        EXPECT_CUDA(GateLogits(h_device.get(), gate_device.get(), logits.get(), n_rows, d,
                               n_experts, nullptr));
        EXPECT_EQ(FirstDifference(logits.Read(), Logits(h, gate, d)), -1)
            << n_rows << " rows of " << d << ", " << n_experts << " experts";
      }
    }
  }
}

TEST_F(RouterRowsTest, ChoosesTheExpertsOfTheCpu) {
  const float nan = NAN, inf = INFINITY;
  const int64_t n_rows = 9;
  for (int n_experts : {1, 8, 60, 128}) {
    std::vector<float> logits = RandomFloats(n_rows * n_experts, 3, n_experts);
    for (int e = 0; e < n_experts; ++e) {
      logits[n_experts + e] = 0.5f;                           // all alike
      logits[2 * n_experts + e] = e % 2 == 0 ? -1.0f : 1.0f;  // many alike
      if (e % 3 == 0) logits[3 * n_experts + e] = nan;
      logits[4 * n_experts + e] = nan;
      if (e % 5 == 2) logits[5 * n_experts + e] = inf;
      if (e % 5 != 2) logits[6 * n_experts + e] = -inf;
      if (e % 2 == 0) logits[7 * n_experts + e] = -0.0f;
    }
    for (int top_k : {1, 2, 8, 64}) {
      if (top_k > n_experts) continue;
      const DeviceArray<float> logits_device(logits), weights(n_rows * top_k);
      const DeviceArray<int32_t> experts(n_rows * top_k);
      EXPECT_CUDA(GateTopK(logits_device.get(), n_rows, n_experts, top_k, experts.get(),
                           weights.get(), nullptr));
      const Chosen chosen = TopK(logits, n_experts, top_k);
      EXPECT_EQ(experts.Read(), chosen.experts) << top_k << " of " << n_experts;
      EXPECT_EQ(FirstDifference(weights.Read(), chosen.weights), -1) << top_k << " of " << n_experts;
    }
  }
}

TEST_F(RouterRowsTest, RoutesToAllSlices) {
  const DeviceArray<int32_t> experts(3 * 5);
  const DeviceArray<float> weights(3 * 5);
  EXPECT_CUDA(RouteToAll(3, 5, experts.get(), weights.get(), nullptr));
  EXPECT_EQ(experts.Read(), std::vector<int32_t>({0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4}));
  EXPECT_EQ(weights.Read(), std::vector<float>(15, 1.0f));
}

TEST_F(RouterRowsTest, FoldsInAscendingOrder) {
  for (int64_t d : {8, 1032}) {
    const int n_rows = 3, top_k = 4;
    const std::vector<float> answers = RandomFloats(n_rows * top_k * d, 1, 1),
                             weights = RandomFloats(n_rows * top_k, 1, 2),
                             x = RandomFloats(n_rows * d, 1, 3);
    const DeviceArray<float> answers_device(answers), weights_device(weights);
    for (bool round : {false, true}) {
      std::vector<float> want = x;
      for (int64_t i = 0; i < n_rows * d; ++i) {
        const int64_t row = i / d;
        float sum = 0;
        for (int k = 0; k < top_k; ++k) {
          const float answer = answers[(row * top_k + k) * d + i % d];
          sum = std::fma(round ? FromBF16(ToBF16(answer)) : answer, weights[row * top_k + k], sum);
        }
        want[i] += sum;
      }
      const DeviceArray<float> x_device(x);
      EXPECT_CUDA(FoldAnswers(answers_device.get(), weights_device.get(), round, x_device.get(),
                              n_rows, top_k, d, nullptr));
      EXPECT_EQ(FirstDifference(x_device.Read(), want), -1) << d << ", " << round;
    }
  }
}

TEST_F(RouterRowsTest, NaNStaysNaN) {
  const int64_t d = 64;
  std::vector<float> x = RandomFloats(3 * d, 1, 1);
  x[d + 5] = NAN;
  x[2 * d] = INFINITY;  // the norm of a row of it: 0, but NaN where it stands
  const std::vector<float> weight(d, 1.0f);
  const DeviceArray<float> x_device(x), weight_device(weight), h(x.size());
  EXPECT_CUDA(RouterNorm(x_device.get(), weight_device.get(), kEps, h.get(), 3, d, nullptr));
  const std::vector<float> normed = h.Read(), want = Norm(x, weight);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(std::isnan(want[i]) ? std::isnan(normed[i]) : normed[i] == want[i]) << i;
  }
  const DeviceArray<float> weights(std::vector<float>(6, -0.0f));
  EXPECT_CUDA(FoldAnswers(h.get(), weights.get(), true, x_device.get(), 1, 3, d, nullptr));
  const std::vector<float> folded = x_device.Read();
  for (int64_t i = 0; i < d; ++i) {
    EXPECT_TRUE(std::isnan(folded[i])) << i;  // the second answer is NaN, of which no weight makes 0
  }
}

TEST_F(RouterRowsTest, RefusesWhatItDoesNotCompute) {
  const DeviceArray<float> x(64), y(64);
  const DeviceArray<int32_t> experts(64);
  EXPECT_EQ(RouterNorm(x.get(), x.get(), kEps, y.get(), 1, 12, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RouterNorm(x.get(), nullptr, kEps, y.get(), 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RouterNorm(x.get() + 1, x.get(), kEps, y.get(), 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RouterNorm(x.get(), x.get(), kEps, y.get(), 1, kMaxRouterWidth + 8, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(GateTopK(x.get(), 1, 8, 9, experts.get(), y.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(GateTopK(x.get(), 1, 8, 0, experts.get(), y.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(GateTopK(x.get(), -1, 8, 1, experts.get(), y.get(), nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace gatefold::cuda
