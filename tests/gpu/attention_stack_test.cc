// A model's attention side on the device: right numbers, and the same bits whatever else is
// computed beside a row, in whatever chunks its sequence came.

#include "gatefold/cuda/attention_stack.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gatefold/cuda/attention_self_test.h"
#include "tests/gpu/attention_model_fixture.h"

namespace gatefold::cuda {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

AttentionModelShape Shape(int64_t d_model, int n_heads, int n_kv_heads, int head_dim, int window) {
  return {.n_layers = 2,
          .vocab_size = 203,
          .d_model = d_model,
          .norm_eps = 1e-5f,
          .attention = {n_heads, n_kv_heads, head_dim, window,
                        1.0f / std::sqrt(static_cast<float>(head_dim))},
          .max_positions = 1024};
}

Sequences RandomSequences(const std::vector<int>& lengths, int vocab_size, uint32_t seed) {
  std::mt19937 bits(seed);
  Sequences sequences;
  for (int length : lengths) {
    sequences.emplace_back();
    for (int i = 0; i < length; ++i) {
      sequences.back().push_back(static_cast<int32_t>(bits() % vocab_size));
    }
  }
  return sequences;
}

// In float64, rounding to bfloat16 where the device does, except inside of attention.
class Reference {
 public:
  explicit Reference(const RandomAttentionModel& model) : model_(model), shape_(model.shape) {}

  // x after all layers: [tokens, d_model]. `embedded`: x before them.
  Doubles Run(const std::vector<int32_t>& tokens, Doubles* embedded) const {
    std::vector<Doubles> x;
    for (int32_t token : tokens) {
      x.emplace_back();
      for (int64_t i = 0; i < shape_.d_model; ++i)
        x.back().push_back(model_.embedding.at(token, i));
    }
    *embedded = Flat(x);
    for (const auto& layer : model_.layers) Layer(layer, &x);
    return Flat(x);
  }

  Doubles Logits(const float* x) const {
    return model_.lm_head.Times(Norm(Doubles(x, x + shape_.d_model), model_.final_norm));
  }

 private:
  static Doubles Flat(const std::vector<Doubles>& rows) {
    Doubles flat;
    for (const Doubles& row : rows) flat.insert(flat.end(), row.begin(), row.end());
    return flat;
  }

  Doubles Norm(const Doubles& x, const Floats& weight) const {
    double squares = 0;
    for (double value : x) squares += value * value;
    const double scale = 1 / std::sqrt(squares / x.size() + shape_.norm_eps);
    Doubles y;
    for (size_t i = 0; i < x.size(); ++i) y.push_back(x[i] * scale * weight[i]);
    return y;
  }

  static void AddBias(const Floats& bias, int64_t first, Doubles* y) {
    if (bias.empty()) return;
    for (size_t i = 0; i < y->size(); ++i) (*y)[i] += bias[first + i];
  }

  // Turns each head of q or k, and rounds it; only rounds v.
  Doubles Place(Doubles y, int position, bool turn) const {
    const int d = shape_.attention.head_dim, half = d / 2;
    for (size_t head = 0; turn && head < y.size() / d; ++head) {
      for (int i = 0; i < half; ++i) {
        const double c = model_.cos[position * half + i], s = model_.sin[position * half + i];
        double &a = y[head * d + i], &b = y[head * d + half + i];
        const double turned = a * c - b * s;
        b = b * c + a * s;
        a = turned;
      }
    }
    for (double& value : y) value = RoundBF16(value);
    return y;
  }

  void Layer(const RandomAttentionModel::Layer& layer, std::vector<Doubles>* x) const {
    std::vector<Doubles> keys, values;
    for (size_t p = 0; p < x->size(); ++p) {
      const Doubles h = Norm((*x)[p], layer.norm);
      Doubles q = layer.q.Times(h), k = layer.k.Times(h), v = layer.v.Times(h);
      AddBias(layer.qkv_bias, 0, &q);
      AddBias(layer.qkv_bias, shape_.q_width(), &k);
      AddBias(layer.qkv_bias, shape_.q_width() + shape_.kv_width(), &v);
      const int position = static_cast<int>(p);
      keys.push_back(Place(std::move(k), position, true));
      values.push_back(Place(std::move(v), position, false));
      Doubles o = layer.o.Times(Attend(Place(std::move(q), position, true), keys, values));
      AddBias(layer.o_bias, 0, &o);
      for (int64_t i = 0; i < shape_.d_model; ++i) (*x)[p][i] += o[i];
    }
  }

  // Of the last position.
  Doubles Attend(const Doubles& q, const std::vector<Doubles>& keys,
                 const std::vector<Doubles>& values) const {
    const AttentionShape& shape = shape_.attention;
    const int end = static_cast<int>(keys.size()), d = shape.head_dim;
    const int first = shape.window > 0 ? std::max(0, end - shape.window) : 0;
    Doubles out;
    for (int head = 0; head < shape.n_heads; ++head) {
      const int at = head / shape.group() * d;
      Doubles scores;
      for (int p = first; p < end; ++p) {
        double score = 0;
        for (int i = 0; i < d; ++i) score += q[head * d + i] * keys[p][at + i];
        scores.push_back(score * shape.scale);
      }
      const double highest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - highest);
      for (int i = 0; i < d; ++i) {
        double value = 0;
        for (int p = first; p < end; ++p) value += scores[p - first] * values[p][at + i];
        out.push_back(value / sum);
      }
    }
    return out;
  }

  const RandomAttentionModel& model_;
  const AttentionModelShape& shape_;
};

class AttentionStackTest : public GpuTest {
 protected:
  void ExpectBits(const Floats& got, const Floats& whole, int first_row, const char* what) const {
    const auto begin = whole.begin() + first_row * d_model_;
    EXPECT_EQ(FirstDifference(got, Floats(begin, begin + got.size())), -1) << what;
  }
  void ExpectRowLaw(const AttentionModelShape& shape, bool biases);

  int64_t d_model_ = 0;
};

TEST_F(AttentionStackTest, MatchesTheDefinition) {
  // Three heads of 64: o has inputs that are not there.
  for (const AttentionModelShape& shape : {Shape(200, 3, 1, 64, 0), Shape(256, 8, 1, 128, 50)}) {
    for (const bool biases : {false, true}) {
      SCOPED_TRACE(testing::Message() << shape.d_model << " wide, biases: " << biases);
      const RandomAttentionModel model(shape, biases, 1);
      const Sequences sequences = RandomSequences({90, 20}, static_cast<int>(shape.vocab_size), 2);
      AttentionServer server(model, sequences, 3);
      const Floats x = server.Step({{0, 0, 90}, {1, 0, 20}});
      const Reference reference(model);
      Doubles embedded, embedded1;
      Doubles want = reference.Run(sequences[0], &embedded);
      const Doubles want1 = reference.Run(sequences[1], &embedded1);
      want.insert(want.end(), want1.begin(), want1.end());
      embedded.insert(embedded.end(), embedded1.begin(), embedded1.end());
      // What the layers added: x itself would hide their errors behind the embedding.
      ASSERT_EQ(x.size(), want.size());
      Floats added;
      for (size_t i = 0; i < x.size(); ++i) added.push_back(static_cast<float>(x[i] - embedded[i]));
      for (size_t i = 0; i < x.size(); ++i) want[i] -= embedded[i];
      // bfloat16 keeps 8 bits of the weights inside of attention, and rounds a few rows' elements
      // to the other side, which the second layer sees.
      EXPECT_LT(RelativeError(added, want), 1e-2);

      const Floats some(x.end() - 3 * shape.d_model, x.end());
      Doubles logits;
      for (int r = 0; r < 3; ++r) {
        const Doubles row = reference.Logits(&some[r * shape.d_model]);
        logits.insert(logits.end(), row.begin(), row.end());
      }
      EXPECT_LT(RelativeError(server.Logits(some), logits), 2e-4);
    }
  }
}

void AttentionStackTest::ExpectRowLaw(const AttentionModelShape& shape, bool biases) {
  const RandomAttentionModel model(shape, biases, 4);
  constexpr int kLong = kChunkTokens + 8;
  const std::vector<int> lengths = {kLong, 40, 17};
  const Sequences sequences = RandomSequences(lengths, static_cast<int>(shape.vocab_size), 5);
  const int starts[] = {0, kLong, kLong + 40};
  d_model_ = shape.d_model;
  const Floats whole =
      AttentionServer(model, sequences, 6).Step({{0, 0, kLong}, {1, 0, 40}, {2, 0, 17}});
  for (float value : whole) ASSERT_TRUE(std::isfinite(value));

  for (int s = 0; s < 3; ++s) {
    ExpectBits(AttentionServer(model, sequences, 7 + s).Step({{s, 0, lengths[s]}}), whole,
               starts[s], "alone");
  }
  for (int chunk : {1, 7, 64}) {
    AttentionServer server(model, sequences, 20 + chunk);
    constexpr int kFirst = kLong - 80;  // at once
    Floats out = server.Step({{0, 0, kFirst}});
    for (int begin = kFirst; begin < kLong; begin += chunk) {
      const Floats some = server.Step({{0, begin, std::min(chunk, kLong - begin)}});
      out.insert(out.end(), some.begin(), some.end());
    }
    ExpectBits(out, whole, 0, "in chunks");
  }
  AttentionServer server(model, sequences, 30);
  server.Step({{1, 0, 25}, {0, 0, kLong - 15}, {2, 0, 2}});
  for (int i = 0; i < 15; ++i) {  // decode, and a prefill beside it in the last step
    std::vector<RowSpan> spans = {{0, kLong - 15 + i, 1}, {1, 25 + i, 1}};
    if (i == 14) spans.push_back({2, 2, 15});
    const Floats rows = server.Step(spans);
    const auto row = [&](int r, int n) {
      return Floats(rows.begin() + r * d_model_, rows.begin() + (r + n) * d_model_);
    };
    ExpectBits(row(0, 1), whole, kLong - 15 + i, "decode");
    ExpectBits(row(1, 1), whole, kLong + 25 + i, "decode beside it");
    if (i == 14) ExpectBits(row(2, 15), whole, kLong + 40 + 2, "prefill beside decode");
  }
  // Rows of one sequence around those of another: the last one reads what the first ones add.
  AttentionServer apart(model, sequences, 31);
  apart.Step({{0, 0, 60}});
  const Floats rows = apart.Step({{0, 60, 4}, {1, 0, 1}, {0, 64, 1}});
  ExpectBits(Floats(rows.begin(), rows.begin() + 4 * d_model_), whole, 60, "before another");
  ExpectBits(Floats(rows.end() - d_model_, rows.end()), whole, 64, "after another");
}

// The row law.
TEST_F(AttentionStackTest, ARowHasTheSameBitsInEveryStep) {
  ExpectRowLaw(Shape(200, 4, 2, 64, 0), true);
  ExpectRowLaw(Shape(256, 8, 1, 128, 0), false);
  ExpectRowLaw(Shape(256, 3, 3, 64, 100), false);
}

TEST_F(AttentionStackTest, WeightsTakeWhatTheirShapeSays) {
  const RandomAttentionModel model(Shape(200, 3, 1, 64, 0), true, 1);
  EXPECT_EQ(model.device.bytes(), model.shape.WeightBytes());
}

TEST_F(AttentionStackTest, LogitsOfARowAreTheSameBesideOthers) {
  const RandomAttentionModel model(Shape(200, 4, 2, 64, 0), false, 8);
  AttentionServer server(model, {{0}}, 9);
  const int64_t d = model.shape.d_model, vocab = model.shape.vocab_size;
  const Floats x = RandomFloats(AttentionStack::kMaxLogitRows * d, 1.0f, 10);
  const Floats all = server.Logits(x);
  for (int n : {1, 2, 8, 9, 31}) {
    for (int first : {0, AttentionStack::kMaxLogitRows - n}) {
      const Floats some = server.Logits(Floats(x.begin() + first * d, x.begin() + (first + n) * d));
      EXPECT_EQ(FirstDifference(
                    some, Floats(all.begin() + first * vocab, all.begin() + (first + n) * vocab)),
                -1)
          << n << " rows from " << first;
    }
  }
}

// A step that is run again, as after a failure, gives the same rows and keeps the same keys.
TEST_F(AttentionStackTest, AStepMayBeRunAgain) {
  const RandomAttentionModel model(Shape(200, 4, 2, 64, 0), false, 11);
  const Sequences sequences = RandomSequences({30, 5}, 203, 12);
  AttentionServer server(model, sequences, 13);
  server.Step({{0, 0, 20}});
  const Floats first = server.Step({{0, 20, 9}, {1, 0, 5}});
  EXPECT_EQ(FirstDifference(server.Step({{0, 20, 9}, {1, 0, 5}}), first), -1);
  d_model_ = model.shape.d_model;
  ExpectBits(server.Step({{0, 29, 1}}), AttentionServer(model, sequences, 14).Step({{0, 0, 30}}),
             29, "after a step that was run twice");
}

// The host is ahead of the device: what it sends for a step must not change one that is under way.
TEST_F(AttentionStackTest, StepsMayBeSentWithoutWaiting) {
  const RandomAttentionModel model(Shape(200, 4, 2, 64, 0), false, 11);
  const Sequences sequences = RandomSequences({40, 23}, 203, 12);
  const std::vector<std::vector<RowSpan>> spans = {
      {{0, 0, 30}, {1, 0, 20}}, {{0, 30, 1}}, {{1, 20, 3}, {0, 31, 9}}};
  std::vector<Floats> expected;
  AttentionServer waits(model, sequences, 13), server(model, sequences, 13);
  for (const auto& of_step : spans) expected.push_back(waits.Step(of_step));
  server.Step(spans[0]);  // memory grows
  for (int times = 0; times < 4; ++times) {
    std::vector<std::unique_ptr<DeviceArray<float>>> steps;
    for (const auto& of_step : spans) steps.push_back(server.Start(of_step));
    for (size_t i = 0; i < spans.size(); ++i) {
      EXPECT_EQ(FirstDifference(steps[i]->Read(), expected[i]), -1) << i;
    }
  }
}

TEST_F(AttentionStackTest, TheSelfTestRepeats) {
  Floats answers, again;
  EXPECT_CUDA(AttentionSelfTest(&answers));
  EXPECT_CUDA(AttentionSelfTest(&again));
  EXPECT_EQ(FirstDifference(again, answers), -1);
  for (float value : answers) ASSERT_TRUE(std::isfinite(value));
}

TEST_F(AttentionStackTest, RefusesWhatDoesNotFit) {
  const RandomAttentionModel model(Shape(200, 4, 2, 64, 0), false, 15);
  AttentionServer server(model, {{0}}, 16);
  AttentionStack& stack = server.stack();
  AttentionStep step;
  const std::vector<int32_t> table(40, 0), tokens(2, 0);
  const DeviceArray<float> x(2 * model.shape.d_model);
  const auto upload = [&](std::vector<SequenceRows> rows) {
    return stack.Upload(rows, nullptr, &step, nullptr);
  };
  EXPECT_EQ(upload({}), cudaErrorInvalidValue);
  EXPECT_EQ(upload({{table.data(), 0, 0}}), cudaErrorInvalidValue);
  EXPECT_EQ(upload({{table.data(), -1, 1}}), cudaErrorInvalidValue);
  EXPECT_EQ(upload({{nullptr, 0, 1}}), cudaErrorInvalidValue);
  EXPECT_EQ(upload({{table.data(), 1023, 2}}), cudaErrorInvalidValue);
  EXPECT_EQ(stack.Attend(0, step, x.get(), nullptr), cudaErrorInvalidValue);  // nothing is there
  EXPECT_EQ(upload({{table.data(), 0, 2}}), cudaSuccess);
  EXPECT_EQ(stack.EmbedAndAttend(step, x.get(), nullptr), cudaErrorInvalidValue);  // no token ids
  EXPECT_EQ(stack.Attend(2, step, x.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(stack.Logits(x.get(), 0, x.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(stack.Logits(x.get(), 33, x.get(), nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace gatefold::cuda
