#include "gatefold/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"

namespace gatefold::kernels {
namespace {

using AttentionTest = KernelsTest;

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

TEST_P(AttentionTest, AttentionMatchesTheDefinition) {
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

TEST_P(AttentionTest, AttentionOfChunksHasTheBitsOfTheWhole) {
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

TEST_P(AttentionTest, ARowsBitsDoNotDependOnTheOtherSequences) {
  const int n_heads = 12, head_dim = 24, width = n_heads * head_dim;
  Cache cache(4, head_dim, 48, {2, 0, 1});
  // Two more sequences in the same storage, by other tables.
  const std::vector<int32_t> tables[] = {cache.table, {0, 2, 1}, {1, 1, 2}};
  const std::vector<float> q = Random(9 * width, 15);
  std::vector<float> together(9 * width), alone(9 * width);
  std::vector<AttentionRow> rows;
  for (int i = 0; i < 9; ++i) {
    const int position = i == 0 ? 0 : 31 - i;
    rows.push_back({&q[i * width], &together[i * width], position, tables[i % 3].data()});
  }
  ThreadPool pool(2, absl::ZeroDuration());
  Attention(cache.layout, n_heads, 0, 0.2f, cache.keys.data(), cache.values.data(), rows, &pool);
  for (int i = 0; i < 9; ++i) {
    AttentionRow row = rows[i];
    row.out = &alone[i * width];
    Attention(cache.layout, n_heads, 0, 0.2f, cache.keys.data(), cache.values.data(), {row},
              nullptr);
  }
  EXPECT_EQ(together, alone);
}

TEST_P(AttentionTest, BlocksOutsideTheWindowAreNotVisited) {
  Cache cache(1, 16, 64, {0, 1, 2, 3});
  const std::vector<float> q = Random(64 * 16, 16);
  const std::vector<float> before = Attend(cache, 1, 20, q, 63, 64, nullptr);
  // Positions 44 to 63 are seen. Block 0 and 1 were given back, and hold no number any more.
  for (int64_t i = 0; i < 2 * cache.layout.BlockFloats(); ++i) {
    cache.keys[i] = cache.values[i] = NAN;
  }
  cache.table[0] = cache.table[1] = 1 << 30;
  EXPECT_EQ(Attend(cache, 1, 20, q, 63, 64, nullptr), before);
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  Cache cache(1, 16, 20, {0, 1});
  std::vector<float> q(20 * 16, 300.0f);
  for (float& key : cache.keys) key *= 1e4f;
  for (float value : Attend(cache, 1, 0, q, 19, 20, nullptr)) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(AttentionTest, NanOfAQueryComesOut) {
  const Cache cache(1, 16, 20, {0, 1});
  std::vector<float> q = Random(20 * 16, 17);
  q[19 * 16 + 3] = NAN;
  for (float value : Attend(cache, 1, 0, q, 19, 20, nullptr)) EXPECT_TRUE(std::isnan(value));
}

TEST(AttentionIsaTest, AllInstructionSetsGiveTheSameBits) {
  for (int group : {1, 2, 3, 4, 7, 8, 11}) {
    for (int head_dim : {2, 16, 70, 128}) {
      const Cache cache(2, head_dim, 75, {4, 2, 0, 1, 3});
      const std::vector<float> q = Random(75 * 2 * group * head_dim, 18);
      for (int window : {0, 33}) {
        ExpectSameBitsOnAllIsas(
            [&] { return Attend(cache, 2 * group, window, q, 50, 75, nullptr); });
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gatefold::kernels
