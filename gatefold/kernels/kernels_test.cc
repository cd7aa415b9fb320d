// All kernels against plain double-precision loops, over odd sizes, and bit for bit against each
// other over instruction sets, batches, threads and chunks.

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gatefold/kernels/attention.h"
#include "gatefold/kernels/expert_mlp.h"
#include "gatefold/kernels/gate.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold::kernels {
namespace {

using testing::ElementsAre;

std::vector<float> Random(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(n);
  for (float& value : values) value = uniform(engine);
  return values;
}

// A matrix of any type with its values as floats.
struct Weights {
  Weights(DType dtype, int64_t n_out, int64_t n_in, uint32_t seed)
      : dtype(dtype), n_out(n_out), n_in(n_in), values(Random(n_out * n_in, seed)) {
    bytes.resize(values.size() * DTypeBytes(dtype) + 1);
    for (size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::kF32) {
        std::memcpy(&bytes[1 + 4 * i], &values[i], 4);
        continue;
      }
      uint16_t half = FloatToBF16(values[i]);
      if (dtype == DType::kF16) half &= 0xbfff;  // below 2
      values[i] = dtype == DType::kBF16 ? BF16ToFloat(half) : F16ToFloat(half);
      std::memcpy(&bytes[1 + 2 * i], &half, 2);
    }
  }
  // Unaligned on purpose: checkpoints promise nothing.
  MatrixView View() const { return {dtype, n_out, n_in, n_in, bytes.data() + 1}; }

  DType dtype;
  int64_t n_out, n_in;
  std::vector<float> values;
  std::vector<char> bytes;
};

std::vector<float> Reference(const Weights& w, const std::vector<float>& x, int64_t n_rows) {
  std::vector<float> y(n_rows * w.n_out);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t o = 0; o < w.n_out; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < w.n_in; ++i) {
        sum += static_cast<double>(w.values[o * w.n_in + i]) * x[r * w.n_in + i];
      }
      y[r * w.n_out + o] = static_cast<float>(sum);
    }
  }
  return y;
}

// float32 sums of K terms of size about 1: K/16 rounding steps per lane of half a unit each.
float Tolerance(int64_t k) { return 1e-6f * (4.0f + std::sqrt(static_cast<float>(k))); }

std::vector<std::string> Isas() {
  std::vector<std::string> isas;
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    if (SelectIsa(isa).ok()) isas.push_back(isa);
  }
  return isas;
}

class KernelsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SelectIsa(GetParam()).ok()); }
  void TearDown() override { ASSERT_TRUE(SelectIsa("auto").ok()); }
};

TEST_P(KernelsTest, MatMulMatchesTheDefinition) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int64_t n_in : {1, 31, 32, 33, 176}) {
      for (int64_t n_out : {1, 22, 45}) {
        const Weights w(dtype, n_out, n_in, 1);
        const PackedMatrix packed(w.View(), nullptr);
        for (int64_t n_rows : {1, 2, 5, 6, 7, 20}) {
          const std::vector<float> x = Random(n_rows * n_in, 2);
          const std::vector<float> want = Reference(w, x, n_rows);
          std::vector<float> y(n_rows * n_out, NAN);
          MatMul(packed, x.data(), y.data(), n_rows, nullptr);
          for (size_t i = 0; i < y.size(); ++i) {
            ASSERT_NEAR(y[i], want[i], Tolerance(n_in))
                << DTypeName(dtype) << " " << n_rows << "x" << n_in << "x" << n_out;
          }
        }
      }
    }
  }
}

TEST_P(KernelsTest, ARowsBitsDoNotDependOnItsBatchOrTheThreads) {
  const Weights w(DType::kBF16, 301, 515, 3);
  const PackedMatrix packed(w.View(), nullptr);
  const std::vector<float> x = Random(37 * 515, 4);
  std::vector<float> alone(37 * 301);
  for (int r = 0; r < 37; ++r) MatMul(packed, &x[r * 515], &alone[r * 301], 1, nullptr);
  for (int n_threads : {1, 2, 3}) {
    ThreadPool pool(n_threads, absl::ZeroDuration());
    std::vector<float> batch(37 * 301);
    MatMul(packed, x.data(), batch.data(), 37, &pool);
    EXPECT_EQ(batch, alone) << n_threads;
  }
}

TEST_P(KernelsTest, BiasIsAddedAtTheEnd) {
  const Weights w(DType::kF32, 9, 40, 5);
  const PackedMatrix packed(w.View(), nullptr);
  const std::vector<float> x = Random(80, 6), bias = Random(9, 7);
  std::vector<float> plain(18), biased(18);
  MatMul(packed, x.data(), plain.data(), 2, nullptr);
  MatMul(packed, x.data(), biased.data(), 2, nullptr, bias.data());
  for (int i = 0; i < 18; ++i) EXPECT_EQ(biased[i], plain[i] + bias[i % 9]);
}

TEST_P(KernelsTest, FillPutsMatricesOnTopOfEachOther) {
  const Weights a(DType::kF16, 7, 33, 8), b(DType::kF16, 6, 33, 9);
  PackedMatrix both(DType::kF16, 13, 33);
  both.Fill(0, a.View(), nullptr);
  both.Fill(7, b.View(), nullptr);
  const std::vector<float> x = Random(33, 10);
  std::vector<float> y(13), ya(7), yb(6);
  MatMul(both, x.data(), y.data(), 1, nullptr);
  MatMul(PackedMatrix(a.View(), nullptr), x.data(), ya.data(), 1, nullptr);
  MatMul(PackedMatrix(b.View(), nullptr), x.data(), yb.data(), 1, nullptr);
  ya.insert(ya.end(), yb.begin(), yb.end());
  EXPECT_EQ(y, ya);
}

TEST_P(KernelsTest, ExpertMlpMatchesTheDefinitionWithAndWithoutBiases) {
  for (const bool biased : {false, true}) {
    const int64_t d = 36, f = 22, n_rows = 9;
    const Weights w1(DType::kBF16, f, d, 1), w3(DType::kBF16, f, d, 2), w2(DType::kBF16, d, f, 3);
    const std::vector<float> b1 = Random(f, 4), b3 = Random(f, 5), b2 = Random(d, 6);
    ExpertWeights::Views views{w1.View(), w3.View(), w2.View(), {}, {}, {}};
    if (biased) {
      views.b1 = {DType::kF32, {f}, b1.data()};
      views.b3 = {DType::kF32, {f}, b3.data()};
      views.b2 = {DType::kF32, {d}, b2.data()};
    }
    const ExpertWeights expert(views, nullptr);
    const std::vector<float> x = Random(n_rows * d, 7);
    std::vector<float> gate = Reference(w1, x, n_rows), up = Reference(w3, x, n_rows);
    for (int64_t i = 0; i < n_rows * f; ++i) {
      if (biased) {
        gate[i] += b1[i % f];
        up[i] += b3[i % f];
      }
      gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    }
    const std::vector<float> want = Reference(w2, gate, n_rows);
    const std::vector<int32_t> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<int32_t> slots = {8, 7, 6, 5, 4, 3, 2, 1, 0};
    std::vector<float> y(n_rows * d);
    ExpertMlp({{&expert, rows, slots}}, x.data(), n_rows, y.data(), nullptr);
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t i = 0; i < d; ++i) {
        const float bias = biased ? b2[i] : 0;
        EXPECT_NEAR(y[(8 - r) * d + i], want[r * d + i] + bias, 1e-4);
      }
    }
  }
}

TEST_P(KernelsTest, GroupsOfExpertsGiveTheBitsOfEachAlone) {
  const int64_t d = 64, n_rows = 33;
  std::vector<ExpertWeights> experts;
  for (uint32_t e = 0; e < 3; ++e) {
    const int64_t f = 40 + e;  // slices of a dense layer differ by one
    const Weights w1(DType::kF32, f, d, 10 + e), w3(DType::kF32, f, d, 20 + e),
        w2(DType::kF32, d, f, 30 + e);
    experts.emplace_back(ExpertWeights::Views{w1.View(), w3.View(), w2.View(), {}, {}, {}},
                         nullptr);
  }
  const std::vector<float> x = Random(n_rows * d, 40);
  std::vector<std::vector<int32_t>> rows(3), slots(3);
  for (int32_t r = 0; r < n_rows; ++r) {
    for (int32_t k = 0; k < 2; ++k) {
      rows[(r + k) % 3].push_back(r);
      slots[(r + k) % 3].push_back(2 * r + k);
    }
  }
  std::vector<float> alone(2 * n_rows * d), together(2 * n_rows * d);
  std::vector<ExpertGroup> groups;
  const std::vector<int32_t> zero = {0};
  for (int e = 0; e < 3; ++e) {
    groups.push_back({&experts[e], rows[e], slots[e]});
    for (size_t i = 0; i < rows[e].size(); ++i) {
      ExpertMlp({{&experts[e], zero, zero}}, &x[rows[e][i] * d], 1, &alone[slots[e][i] * d],
                nullptr);
    }
  }
  for (int n_threads : {1, 3}) {
    ThreadPool pool(n_threads, absl::ZeroDuration());
    ExpertMlp(groups, x.data(), n_rows, together.data(), &pool);
    EXPECT_EQ(together, alone) << n_threads;
  }
}

TEST_P(KernelsTest, ExpIsRightToTwoUnits) {
  for (float x = -87.0f; x < 88.0f; x += 0.0137f) {
    float in[16], out[16];
    for (int j = 0; j < 16; ++j) in[j] = x + 0.0007f * j;
    Kernels().exp16(in, out);
    for (int j = 0; j < 16; ++j) {
      const double want = std::exp(static_cast<double>(in[j]));
      ASSERT_NEAR(out[j] / want, 1.0, 2.5e-7) << in[j];
    }
  }
}

TEST_P(KernelsTest, RmsNormMatchesTheDefinition) {
  for (int64_t d : {1, 15, 16, 67}) {
    const std::vector<float> x = Random(3 * d, 1), weight = Random(d, 2);
    std::vector<float> y(3 * d);
    RmsNorm(x.data(), weight.data(), 1e-5f, y.data(), 3, d);
    for (int64_t i = 0; i < 3 * d; ++i) {
      double squares = 0;
      for (int64_t j = 0; j < d; ++j) squares += std::pow(x[i / d * d + j], 2);
      EXPECT_NEAR(y[i], x[i] / std::sqrt(squares / d + 1e-5) * weight[i % d], 1e-6);
    }
  }
}

TEST_P(KernelsTest, FoldAddsWeightedAnswers) {
  for (int64_t d : {1, 16, 37}) {
    const std::vector<float> answers = Random(2 * 3 * d, 1), weights = Random(6, 2);
    std::vector<float> x = Random(2 * d, 3);
    std::vector<float> want = x;
    for (int64_t i = 0; i < 2 * d; ++i) {
      for (int k = 0; k < 3; ++k) {
        want[i] += weights[i / d * 3 + k] * answers[(i / d * 3 + k) * d + i % d];
      }
    }
    Fold(answers.data(), weights.data(), x.data(), 2, 3, d, nullptr);
    for (int64_t i = 0; i < 2 * d; ++i) EXPECT_NEAR(x[i], want[i], 1e-6);
  }
}

// ---- attention

class Cache {
 public:
  Cache(int n_kv_heads, int head_dim, int n_positions, std::vector<int32_t> table)
      : layout{.n_kv_heads = n_kv_heads, .head_dim = head_dim}, table(std::move(table)) {
    const size_t width = static_cast<size_t>(n_kv_heads) * head_dim;
    k = Random(n_positions * width, 11);
    v = Random(n_positions * width, 12);
    // What lies in unwritten places must not matter.
    keys.assign(this->table.size() * layout.BlockFloats(), NAN);
    values.assign(keys.size(), NAN);
    for (int p = 0; p < n_positions; ++p) {
      AppendKv(layout, &k[p * width], &v[p * width], p, this->table.data(), keys.data(),
               values.data());
    }
  }
  KvLayout layout;
  std::vector<int32_t> table;
  std::vector<float> k, v, keys, values;
};

std::vector<float> Attend(const Cache& cache, int n_heads, int window, const std::vector<float>& q,
                          int first, int end, ThreadPool* pool) {
  const size_t width = static_cast<size_t>(n_heads) * cache.layout.head_dim;
  std::vector<float> out((end - first) * width);
  std::vector<AttentionRow> rows;
  for (int p = first; p < end; ++p) {
    rows.push_back({&q[p * width], &out[(p - first) * width], p, cache.table.data()});
  }
  Attention(cache.layout, n_heads, window, 0.3f, cache.keys.data(), cache.values.data(), rows,
            pool);
  return out;
}

TEST_P(KernelsTest, AttentionMatchesTheDefinition) {
  struct Shape {
    int n_heads, n_kv_heads, head_dim, window;
  };
  for (const Shape& s : {Shape{8, 2, 8, 0}, Shape{4, 4, 18, 5}, Shape{9, 1, 64, 20},
                         Shape{16, 1, 80, 0}, Shape{2, 1, 16, 1}}) {
    const int n = 53, group = s.n_heads / s.n_kv_heads;
    const Cache cache(s.n_kv_heads, s.head_dim, n, {3, 1, 0, 2});
    const std::vector<float> q = Random(n * s.n_heads * s.head_dim, 13);
    const std::vector<float> out = Attend(cache, s.n_heads, s.window, q, 0, n, nullptr);
    for (int p = 0; p < n; ++p) {
      for (int h = 0; h < s.n_heads; ++h) {
        std::vector<double> weights;
        double sum = 0;
        const int begin = s.window > 0 ? std::max(0, p - s.window + 1) : 0;
        for (int j = begin; j <= p; ++j) {
          double score = 0;
          for (int d = 0; d < s.head_dim; ++d) {
            score += static_cast<double>(q[(p * s.n_heads + h) * s.head_dim + d]) *
                     cache.k[(j * s.n_kv_heads + h / group) * s.head_dim + d];
          }
          weights.push_back(std::exp(0.3 * score));
          sum += weights.back();
        }
        for (int d = 0; d < s.head_dim; ++d) {
          double want = 0;
          for (int j = begin; j <= p; ++j) {
            want +=
                weights[j - begin] / sum * cache.v[(j * s.n_kv_heads + h / group) * s.head_dim + d];
          }
          ASSERT_NEAR(out[(p * s.n_heads + h) * s.head_dim + d], want, 3e-6)
              << s.n_heads << "/" << s.n_kv_heads << " window " << s.window << " position " << p;
        }
      }
    }
  }
}

TEST_P(KernelsTest, AttentionOfChunksHasTheBitsOfTheWhole) {
  for (int window : {0, 19}) {
    const Cache cache(2, 20, 61, {0, 2, 3, 1});
    const std::vector<float> q = Random(61 * 6 * 20, 14);
    ThreadPool pool(3, absl::ZeroDuration());
    const std::vector<float> whole = Attend(cache, 6, window, q, 0, 61, &pool);
    for (int chunk : {1, 7, 32}) {
      std::vector<float> pieces;
      for (int first = 0; first < 61; first += chunk) {
        const auto piece = Attend(cache, 6, window, q, first, std::min(first + chunk, 61), nullptr);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
      }
      EXPECT_EQ(pieces, whole) << "chunk " << chunk << " window " << window;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, KernelsTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

TEST(IsaTest, AllInstructionSetsAreOneNumericsClass) {
  std::vector<uint64_t> classes;
  for (const std::string& isa : Isas()) {
    ASSERT_TRUE(SelectIsa(isa).ok());
    classes.push_back(NumericsClass());
  }
  ASSERT_TRUE(SelectIsa("auto").ok());
  EXPECT_THAT(classes, testing::Each(classes[0]));
}

TEST(IsaTest, RefusesUnknownNames) {
  EXPECT_EQ(SelectIsa("sse9").code(), absl::StatusCode::kInvalidArgument);
}

TEST(GateTest, TakesTheLikeliestAndTheLowerIdOfTies) {
  const float logits[] = {1, 3, 3, 2};
  int32_t ids[2];
  float weights[2];
  GateTopK(logits, 1, 4, 2, ids, weights);
  EXPECT_THAT(ids, ElementsAre(1, 2));
  EXPECT_THAT(weights, ElementsAre(0.5f, 0.5f));
}

TEST(GateTest, WeightsAreTheSoftmaxOverTheChosen) {
  const std::vector<float> logits = Random(8, 1);
  int32_t ids[3];
  float weights[3];
  GateTopK(logits.data(), 1, 8, 3, ids, weights);
  double sum = 0;
  for (int32_t id : ids) sum += std::exp(logits[id]);
  for (int k = 0; k < 3; ++k) EXPECT_NEAR(weights[k], std::exp(logits[ids[k]]) / sum, 1e-6);
}

TEST(GateTest, GivesValidIdsForNanAndInfinity) {
  const float logits[] = {NAN, -INFINITY, INFINITY, NAN};
  int32_t ids[3];
  float weights[3];
  GateTopK(logits, 1, 4, 3, ids, weights);
  EXPECT_THAT(ids, ElementsAre(2, 0, 1));
  for (float weight : weights) EXPECT_TRUE(weight >= 0 && weight <= 1);
}

TEST(RopeTest, TurnsPairsOfHalves) {
  float x[] = {1, 2, 3, 4};
  const float cos[] = {0, 1}, sin[] = {1, 0};
  Rope(x, 1, 4, cos, sin);
  EXPECT_THAT(x, ElementsAre(-3, 2, 1, 4));
}

TEST(RoundTest, RoundsToBF16InPlace) {
  float x[] = {1.0f + 0x1p-9f, 3.0f};
  RoundToBF16(x, 2);
  EXPECT_THAT(x, ElementsAre(1.0f, 3.0f));
}

}  // namespace
}  // namespace gatefold::kernels
