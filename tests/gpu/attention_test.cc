#include "gatefold/cuda/attention.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/gpu/attention_fixture.h"

namespace gatefold::cuda {
namespace {

using Floats = std::vector<float>;
constexpr double kLog2E = 1.4426950408889634;

AttentionShape Shape(int n_heads, int n_kv_heads, int head_dim, int window) {
  return {n_heads, n_kv_heads, head_dim, window, 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

std::string Name(const AttentionShape& shape) {
  return std::to_string(shape.n_heads) + "/" + std::to_string(shape.n_kv_heads) + " heads of " +
         std::to_string(shape.head_dim) + ", window " + std::to_string(shape.window);
}

// Both kinds of kernels, whichever the device would choose.
class AttentionTest : public GpuTest, public testing::WithParamInterface<AttentionKernels> {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && GetParam() == AttentionKernels::kHopper && !IsHopper()) {
      GTEST_SKIP() << "skipped: needs compute capability 9";
    }
  }
  static bool IsHopper() {
    cudaDeviceProp device;
    EXPECT_CUDA(cudaGetDeviceProperties(&device, 0));
    return device.major == 9;
  }
  static PlanLimits Limits(int n_multiprocessors = 132, int64_t max_slots = 1 << 16) {
    return {n_multiprocessors, max_slots, GetParam()};
  }
};

// One row and head in float64. `exact`: from the float32 projections. Else from operands rounded
// to bf16, with weights rounded where the kernel does it: relative to the highest score so far, 64
// positions at a time, afresh in each chunk.
std::vector<double> Reference(const Prompts& prompts, const PlanRow& row, int head, bool exact) {
  const AttentionShape& shape = prompts.shape;
  const int d_head = shape.head_dim, half = d_head / 2;
  const auto operand = [&](int position, int h) {
    std::vector<float> rounded = prompts.Head(row.sequence, position, h);
    std::vector<double> x(rounded.begin(), rounded.end());
    if (!exact) return x;
    const float* raw = &prompts.qkv[row.sequence][static_cast<size_t>(position) * prompts.width() +
                                                  static_cast<size_t>(h) * d_head];
    for (int i = 0; i < half; ++i) {
      const bool turn = h < shape.n_heads + shape.n_kv_heads;
      const double c = turn ? prompts.cos[position * half + i] : 1;
      const double s = turn ? prompts.sin[position * half + i] : 0;
      x[i] = raw[i] * c - raw[i + half] * s;
      x[i + half] = raw[i + half] * c + raw[i] * s;
    }
    return x;
  };
  const int kv_head = head / shape.group();
  const std::vector<double> q = operand(row.position, head);
  const int first = shape.window > 0 ? std::max(0, row.position - shape.window + 1) : 0;
  std::vector<double> out(d_head, 0.0);
  double sum = 0, top = -std::numeric_limits<double>::infinity();
  for (int chunk = first / kChunkTokens; chunk <= row.position / kChunkTokens; ++chunk) {
    std::vector<double> o(d_head, 0.0);
    double m = -std::numeric_limits<double>::infinity(), l = 0;
    for (int tile = chunk * kChunkTokens; tile < (chunk + 1) * kChunkTokens; tile += 64) {
      const int begin = std::max(tile, first), end = std::min(tile + 64, row.position + 1);
      if (begin >= end) continue;
      std::vector<double> scores;
      double highest = m;
      for (int p = begin; p < end; ++p) {
        const std::vector<double> k = operand(p, shape.n_heads + kv_head);
        double score = 0;
        for (int d = 0; d < d_head; ++d) score += q[d] * k[d];
        scores.push_back(score * shape.scale * kLog2E);
        highest = std::max(highest, scores.back());
      }
      const double scale = std::exp2(m - highest);
      m = highest;
      l *= scale;
      for (double& value : o) value *= scale;
      for (int p = begin; p < end; ++p) {
        const std::vector<double> v = operand(p, shape.n_heads + shape.n_kv_heads + kv_head);
        const double weight = std::exp2(scores[p - begin] - m);
        const double used = exact ? weight : RoundBF16(static_cast<float>(weight));
        l += weight;
        for (int d = 0; d < d_head; ++d) o[d] += used * v[d];
      }
    }
    const double highest = std::max(top, m);
    const double before = std::exp2(top - highest), now = std::exp2(m - highest);
    sum = sum * before + l * now;
    for (int d = 0; d < d_head; ++d) out[d] = out[d] * before + o[d] * now;
    top = highest;
  }
  for (double& value : out) value /= sum;
  return out;
}

// All positions of all sequences in one step.
std::vector<PlanRow> Everything(const Prompts& prompts) {
  std::vector<PlanRow> rows;
  for (size_t s = 0; s < prompts.lengths.size(); ++s) {
    for (const PlanRow& row : Span(static_cast<int>(s), 0, prompts.lengths[s])) rows.push_back(row);
  }
  return rows;
}

// The rows' outputs out of those of Everything.
Floats Pick(const Prompts& prompts, const Floats& all, const std::vector<PlanRow>& rows) {
  const int64_t width = prompts.shape.n_heads * prompts.shape.head_dim;
  Floats picked;
  for (const PlanRow& row : rows) {
    int64_t at = row.position;
    for (int s = 0; s < row.sequence; ++s) at += prompts.lengths[s];
    picked.insert(picked.end(), all.begin() + at * width, all.begin() + (at + 1) * width);
  }
  return picked;
}

const AttentionShape kShapes[] = {Shape(8, 2, 128, 0),  Shape(4, 4, 64, 0),  Shape(7, 1, 64, 100),
                                  Shape(16, 1, 128, 0), Shape(5, 1, 128, 1), Shape(10, 2, 64, 300),
                                  Shape(32, 2, 64, 0),  Shape(8, 2, 128, 64)};

TEST_P(AttentionTest, MatchesTheDefinition) {
  for (const AttentionShape& shape : kShapes) {
    const Prompts prompts(shape, {530, 3, 257}, 1);
    const Floats out = Server(prompts, 2, Limits()).Step(Everything(prompts));
    Floats checked;
    std::vector<double> exact, rounded;
    for (const PlanRow& row : {PlanRow{529, 0},
                               {0, 0},
                               {1, 0},
                               {63, 0},
                               {64, 0},
                               {255, 0},
                               {383, 0},
                               {511, 0},
                               {512, 0},
                               {2, 1},
                               {256, 2},
                               {100, 2}}) {
      const Floats picked = Pick(prompts, out, {row});
      for (int h = 0; h < shape.n_heads; ++h) {
        const std::vector<double> a = Reference(prompts, row, h, true);
        const std::vector<double> b = Reference(prompts, row, h, false);
        exact.insert(exact.end(), a.begin(), a.end());
        rounded.insert(rounded.end(), b.begin(), b.end());
      }
      checked.insert(checked.end(), picked.begin(), picked.end());
    }
    // bf16 keeps 8 bits of q, k, v and of the weights.
    EXPECT_LT(RelativeError(checked, exact), 1e-2) << Name(shape);
    // What is left is float32 arithmetic, and weights that it rounds to the other side.
    EXPECT_LT(RelativeError(checked, rounded), 3e-4) << Name(shape);
    for (float value : out) ASSERT_TRUE(std::isfinite(value)) << Name(shape);
  }
}

TEST_P(AttentionTest, ChunkSizesOfPrefillDoNotShow) {
  for (const AttentionShape& shape : {Shape(8, 2, 128, 0), Shape(7, 1, 64, 100)}) {
    const Prompts prompts(shape, {530}, 3);
    const Floats whole = Server(prompts, 4, Limits()).Step(Span(0, 0, 530));
    for (int chunk : {1, 7, 64, 529}) {
      Server server(prompts, 5 + chunk, Limits());
      Floats out;
      for (int begin = 0; begin < 530; begin += chunk) {
        const Floats some = server.Step(Span(0, begin, std::min(530, begin + chunk)));
        out.insert(out.end(), some.begin(), some.end());
      }
      EXPECT_EQ(FirstDifference(out, whole), -1) << Name(shape) << ", chunks of " << chunk;
    }
  }
}

TEST_P(AttentionTest, DecodeGivesTheBitsOfPrefill) {
  for (const AttentionShape& shape : kShapes) {
    const Prompts prompts(shape, {800, 514}, 7);
    const Floats whole = Server(prompts, 8, Limits()).Step(Everything(prompts));
    Server server(prompts, 9, Limits());
    server.Step(Span(0, 0, 760));
    server.Step(Span(1, 0, 474));
    for (int i = 0; i < 40; ++i) {
      const std::vector<PlanRow> rows = {{474 + i, 1}, {760 + i, 0}};
      ASSERT_EQ(FirstDifference(server.Step(rows), Pick(prompts, whole, rows)), -1)
          << Name(shape) << ", decode step " << i;
    }
  }
}

TEST_P(AttentionTest, OtherRowsOfTheStepDoNotShow) {
  const AttentionShape shape = Shape(8, 2, 128, 0);
  const Prompts prompts(shape, {300, 290, 17, 600}, 11);
  const Floats whole = Server(prompts, 12, Limits()).Step(Everything(prompts));
  // Decode rows between chunks of prefill, the sequences in another order.
  Server server(prompts, 13, Limits());
  server.Step(Span(3, 0, 599));
  server.Step(Span(1, 0, 280));
  std::vector<PlanRow> rows = {{599, 3}};
  for (const PlanRow& row : Span(0, 0, 300)) rows.push_back(row);
  rows.push_back({280, 1});
  for (const PlanRow& row : Span(2, 0, 17)) rows.push_back(row);
  EXPECT_EQ(FirstDifference(server.Step(rows), Pick(prompts, whole, rows)), -1);
  // Computed again, alone.
  for (const PlanRow& row : {PlanRow{599, 3}, {299, 0}, {131, 0}, {280, 1}, {16, 2}, {0, 2}}) {
    EXPECT_EQ(FirstDifference(server.Step({row}), Pick(prompts, whole, {row})), -1)
        << "position " << row.position << " of " << row.sequence;
  }
}

// Who reads such a position sees it, whoever does not is as ever, whether beside it or not.
TEST_P(AttentionTest, WhatIsNoNumberShowsOnlyToWhoReadsIt) {
  constexpr int kBroken = 70, kLength = 180;
  const float inf = std::numeric_limits<float>::infinity();
  for (const AttentionShape& shape : {Shape(8, 2, 128, 0), Shape(8, 2, 64, 100)}) {
    const Prompts sound(shape, {kLength}, 51);
    const Floats whole = Server(sound, 52, Limits()).Step(Everything(sound));
    const auto is_hit = [&](int position, int head) {
      const bool reads = position >= kBroken && (shape.window == 0 || position < kBroken + shape.window);
      return reads && head >= shape.group();
    };
    const int key = (shape.n_heads + 1) * shape.head_dim, value = key + shape.n_kv_heads * shape.head_dim;
    // The last is infinite as bfloat16.
    for (const auto& fault : {std::pair(key + 3, NAN), {value + 3, NAN}, {value, inf}, {value + 50, -3.4e38f}}) {
      const int at = fault.first;
      const float x = fault.second;
      Prompts prompts = sound;
      prompts.qkv[0][static_cast<size_t>(kBroken) * prompts.width() + at] = x;
      const auto expect = [&](const Floats& out, const std::vector<PlanRow>& rows) {
        const Floats want = Pick(sound, whole, rows);
        for (size_t i = 0; i < out.size(); ++i) {
          const int position = rows[i / (shape.n_heads * shape.head_dim)].position;
          const int head = static_cast<int>(i / shape.head_dim) % shape.n_heads;
          const bool is_right = is_hit(position, head) ? std::isnan(out[i]) : out[i] == want[i];
          ASSERT_TRUE(is_right) << Name(shape) << ", " << x << " at " << at << ": position " << position
                                << ", head " << head << ": " << out[i];
        }
      };
      expect(Server(prompts, 53, Limits()).Step(Everything(prompts)), Everything(prompts));
      Server server(prompts, 54, Limits());  // few rows
      server.Step(Span(0, 0, kBroken - 1));
      expect(server.Step(Span(0, kBroken - 1, kBroken + 1)), Span(0, kBroken - 1, kBroken + 1));
    }
  }
}

TEST_P(AttentionTest, HowThePlanCutsDoesNotShow) {
  for (const AttentionShape& shape : {Shape(8, 2, 128, 0), Shape(4, 4, 64, 300)}) {
    const Prompts prompts(shape, {700}, 15);
    std::vector<Floats> outs;
    for (const PlanLimits& limits :
         {Limits(), Limits(132, 0), Limits(1), Limits(5), Limits(100000), Limits(100000, 300)}) {
      Server server(prompts, 16 + outs.size(), limits);
      server.Step(Span(0, 0, 600));
      Floats out = server.Step(Span(0, 600, 690));
      const Floats last = server.Step(Span(0, 690, 691));
      out.insert(out.end(), last.begin(), last.end());
      outs.push_back(out);
      EXPECT_EQ(FirstDifference(outs.back(), outs.front()), -1)
          << Name(shape) << ", " << limits.n_multiprocessors << " multiprocessors, "
          << limits.max_slots << " slots";
    }
  }
}

// Runs of chunks that a worker merges by itself, those that others merge, tiles of several rows.
TEST_P(AttentionTest, LongContextsGiveTheSameBitsInAnyPieces) {
  for (const AttentionShape& shape : {Shape(8, 2, 128, 0), Shape(16, 1, 64, 2000)}) {
    const Prompts prompts(shape, {4500, 300}, 27);
    const Floats whole = Server(prompts, 28, Limits(132, 0)).Step(Everything(prompts));
    for (const PlanLimits& limits : {Limits(), Limits(1), Limits(2), Limits(3), Limits(100000)}) {
      Server server(prompts, 29, limits);
      server.Step(Span(0, 0, 4400));
      for (const int n : {1, 2, 3, 50}) {
        std::vector<PlanRow> rows = Span(0, 4400, 4400 + n);
        for (const PlanRow& row : Span(1, 0, 300)) rows.push_back(row);
        EXPECT_EQ(FirstDifference(server.Step(rows), Pick(prompts, whole, rows)), -1)
            << Name(shape) << ", " << limits.n_multiprocessors << " multiprocessors, " << n
            << " rows";
      }
    }
  }
}

// So a device may choose. What is added up differs in magnitude, which shows in which order it is.
TEST_P(AttentionTest, AllKernelsGiveTheSameBits) {
  if (!IsHopper()) GTEST_SKIP() << "skipped: needs compute capability 9";
  for (const AttentionShape& shape : kShapes) {
    Prompts prompts(shape, {700, 90}, 31);
    std::mt19937 bits(32);
    for (std::vector<float>& qkv : prompts.qkv) {
      for (float& x : qkv) x = std::ldexp(x, static_cast<int>(bits() % 10) - 7);
    }
    PlanLimits other = Limits();
    other.kernels = GetParam() == AttentionKernels::kHopper ? AttentionKernels::kAny
                                                            : AttentionKernels::kHopper;
    const Floats want = Server(prompts, 33, other).Step(Everything(prompts));
    Server server(prompts, 34, Limits());
    EXPECT_EQ(FirstDifference(server.Step(Everything(prompts)), want), -1) << Name(shape);
    const std::vector<PlanRow> rows = {{699, 0}, {89, 1}};
    EXPECT_EQ(FirstDifference(server.Step(rows), Pick(prompts, want, rows)), -1) << Name(shape);
  }
}

TEST_P(AttentionTest, RoundsItsOutputToBF16) {
  for (const AttentionShape& shape : {Shape(8, 2, 128, 0), Shape(6, 2, 64, 0)}) {
    constexpr int kLength = kChunkTokens + 20;
    const Prompts prompts(shape, {kLength}, 21);
    const Floats out = Server(prompts, 22, Limits()).Step(Span(0, 0, kLength));
    const std::vector<uint16_t> halves =
        Server(prompts, 23, Limits()).StepBF16(Span(0, 0, kLength));
    std::vector<uint16_t> want;
    for (float value : out) want.push_back(ToBF16(value));
    EXPECT_EQ(FirstDifference(halves, want), -1) << Name(shape);
    Server server(prompts, 24, Limits());
    server.StepBF16(Span(0, 0, kLength - 1));
    const std::vector<uint16_t> last = server.StepBF16(Span(0, kLength - 1, kLength));
    EXPECT_EQ(std::vector<uint16_t>(want.end() - last.size(), want.end()), last) << Name(shape);
  }
}

// Out of a cache that is there: a context of so many parts would take long to compute.
TEST_P(AttentionTest, ManyPartsAreMergedAsFew) {
  constexpr int kLength = 34 * kChunkTokens + 100;  // more parts than a warp weighs at once
  for (const AttentionShape& shape : {Shape(3, 1, 128, 0), Shape(3, 1, 64, 0)}) {
    std::vector<int32_t> table((kLength + 63) / 64 * 4);
    std::iota(table.begin(), table.end(), 0);
    const KvCacheLayout layout = {shape.n_kv_heads, shape.head_dim};
    const Floats random = RandomFloats(table.size() * layout.BlockElements(), 1.0f, 41);
    std::vector<uint16_t> kv, q;
    for (size_t i = 0; i < random.size(); ++i) {
      const auto block = static_cast<int>(i / layout.BlockElements());
      const bool is_value = static_cast<int64_t>(i) % layout.HeadElements() >= layout.ValuesAt();
      kv.push_back(ToBF16(std::ldexp(random[i], is_value ? block * 7 % 13 - 6 : 0)));
    }
    for (float x : RandomFloats(shape.n_heads * shape.head_dim, 1.0f, 42)) q.push_back(ToBF16(x));
    const std::vector<int32_t> position = {kLength - 1}, sequence = {0};
    const DeviceArray<int32_t> positions(position), sequences(sequence), tables(table);
    const DeviceArray<uint16_t> q_device(q), kv_device(kv);
    const auto bf16 = [](const DeviceArray<uint16_t>& array) {
      return reinterpret_cast<const __nv_bfloat16*>(array.get());
    };
    const auto attend = [&](const PlanLimits& limits) {
      const AttentionPlan plan =
          PlanAttention(shape, std::vector<PlanRow>{{kLength - 1, 0}}, limits);
      std::vector<unsigned char> packed(plan.PackedBytes());
      plan.Pack(packed.data());
      const DeviceArray<unsigned char> plan_device(packed);
      const DeviceArray<unsigned char> workspace(AttentionWorkspaceBytes(shape, plan.n_slots));
      const DeviceArray<float> out(q.size());
      EXPECT_CUDA(Attention(shape,
                            {.n_rows = 1,
                             .positions = positions.get(),
                             .sequences = sequences.get(),
                             .block_tables = tables.get(),
                             .table_stride = static_cast<int>(table.size())},
                            ViewPlan(plan, plan_device.get(), workspace.get()), bf16(q_device),
                            bf16(kv_device), out.get(), nullptr, nullptr));
      return out.Read();
    };
    const Floats whole = attend(Limits(132, 0));
    for (float value : whole) ASSERT_TRUE(std::isfinite(value));
    for (const PlanLimits& limits : {Limits(100000), Limits(9)}) {
      EXPECT_EQ(FirstDifference(attend(limits), whole), -1)
          << Name(shape) << ", " << limits.n_multiprocessors << " multiprocessors";
    }
  }
}

TEST_P(AttentionTest, RotatesAndKeeps) {
  for (const AttentionShape& shape : {Shape(6, 2, 128, 0), Shape(3, 3, 64, 0)}) {
    const Prompts prompts(shape, {40, 21}, 25);
    Server server(prompts, 26, Limits());
    server.Step(Everything(prompts));
    const auto bits = [&](int sequence, int position, int head) {
      std::vector<uint16_t> halves;
      for (float value : prompts.Head(sequence, position, head)) halves.push_back(ToBF16(value));
      return halves;
    };
    for (const PlanRow& row : {PlanRow{0, 0}, {39, 0}, {16, 1}, {20, 1}}) {
      const int64_t at = row.position + 40 * row.sequence;
      for (int h = 0; h < shape.n_heads; ++h) {
        const auto begin = server.q().begin() + (at * shape.n_heads + h) * shape.head_dim;
        EXPECT_EQ(std::vector<uint16_t>(begin, begin + shape.head_dim),
                  bits(row.sequence, row.position, h));
      }
      for (int h = 0; h < shape.n_kv_heads; ++h) {
        EXPECT_EQ(server.Kept(Server::kKeys, row.sequence, row.position, h),
                  bits(row.sequence, row.position, shape.n_heads + h));
        EXPECT_EQ(server.Kept(Server::kValues, row.sequence, row.position, h),
                  bits(row.sequence, row.position, shape.n_heads + shape.n_kv_heads + h));
      }
    }
    // A place nobody wrote is still poison.
    for (const auto part : {Server::kKeys, Server::kValues}) {
      EXPECT_EQ(server.Kept(part, 0, 47, 0),
                std::vector<uint16_t>(shape.head_dim, uint16_t{0xffff}));
    }
  }
}

TEST_P(AttentionTest, RefusesWhatItDoesNotServe) {
  const RowBatch rows;
  for (const AttentionShape& shape : {Shape(8, 3, 128, 0), Shape(8, 2, 80, 0), Shape(34, 2, 64, 0),
                                      Shape(8, 2, 128, -1), Shape(8, 2, 128, 0) /* no rows */}) {
    EXPECT_EQ(Attention(shape, rows, {}, nullptr, nullptr, nullptr, nullptr, nullptr),
              cudaErrorInvalidValue);
    EXPECT_EQ(RopeAppend(shape, rows, nullptr, 0, {}, nullptr, nullptr, nullptr),
              cudaErrorInvalidValue);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionTest,
                         testing::Values(AttentionKernels::kAny, AttentionKernels::kHopper),
                         [](const auto& info) {
                           return info.param == AttentionKernels::kAny ? "Any" : "Hopper";
                         });

}  // namespace
}  // namespace gatefold::cuda
