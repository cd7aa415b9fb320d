#include "gatefold/cuda/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SamplingTest : public GpuTest {};

// As the CPU's sampler: Philox4x32-10, the seed as key, the position as counter.
double UniformAt(uint64_t seed, uint64_t position) {
  uint32_t c[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
        static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    std::copy(next, next + 4, c);
  }
  return static_cast<double>(((uint64_t{c[0]} << 32) | c[1]) >> 11) * 0x1.0p-53;
}

int32_t Reference(const std::vector<float>& logits, const SampleRow& row) {
  struct Ticket {
    int32_t token;
    float logit;
    double weight;
  };
  std::vector<Ticket> tickets;
  float highest = -kInf;
  for (float logit : logits) highest = logit > highest ? logit : highest;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == -kInf) continue;
    const double weight = std::exp((static_cast<double>(logits[i]) - highest) / row.temperature);
    tickets.push_back({static_cast<int32_t>(i), logits[i], weight});
  }
  const auto sort = [&] {
    std::stable_sort(tickets.begin(), tickets.end(),
                     [](const Ticket& a, const Ticket& b) { return a.logit > b.logit; });
  };
  const auto total = [&] {
    double sum = 0;
    for (const Ticket& ticket : tickets) sum += ticket.weight;
    return sum;
  };
  if (row.top_k > 0 && row.top_k < static_cast<int>(tickets.size())) {
    sort();
    tickets.resize(row.top_k);
  }
  if (row.top_p < 1) {
    const double wanted = row.top_p * total();
    sort();
    double below = 0;
    size_t kept = 0;
    while (kept < tickets.size() && (kept == 0 || below < wanted)) below += tickets[kept++].weight;
    tickets.resize(kept);
  }
  std::erase_if(tickets, [&](const Ticket& ticket) { return ticket.weight < row.min_p; });
  double left = UniformAt(row.seed, static_cast<uint64_t>(row.position) + 1) * total();
  size_t drawn = 0;
  while (drawn + 1 < tickets.size() && left >= tickets[drawn].weight) {
    left -= tickets[drawn++].weight;
  }
  return tickets[drawn].token;
}

// Each row from its own logits.
std::vector<DrawnToken> Draw(const std::vector<std::vector<float>>& logits,
                             const std::vector<SampleRow>& rows) {
  std::vector<float> all;
  for (const auto& row : logits) all.insert(all.end(), row.begin(), row.end());
  const DeviceArray<float> logits_device(all);
  const DeviceArray<SampleRow> rows_device(rows);
  const DeviceArray<DrawnToken> drawn(rows.size());
  EXPECT_CUDA(Sample(logits_device.get(), static_cast<int64_t>(rows.size()),
                     static_cast<int64_t>(logits[0].size()), rows_device.get(), drawn.get(),
                     nullptr));
  return drawn.Read();
}

std::vector<int32_t> Highest(const std::vector<std::vector<float>>& logits) {
  std::vector<int32_t> tokens;
  for (const DrawnToken& drawn : Draw(logits, std::vector<SampleRow>(logits.size()))) {
    EXPECT_EQ(drawn.token, drawn.argmax);
    tokens.push_back(drawn.token);
  }
  return tokens;
}

std::vector<int32_t> Drawn(const std::vector<float>& logits, const std::vector<SampleRow>& rows) {
  std::vector<int32_t> tokens;
  for (const DrawnToken& drawn : Draw(std::vector(rows.size(), logits), rows)) {
    tokens.push_back(drawn.token);
  }
  return tokens;
}

TEST_F(SamplingTest, FindsTheHighest) {
  EXPECT_EQ(Highest({{1, 3, 2}, {-3, -1, -2}, {2, 2, 2}, {-0.0f, 0.0f, -1}, {NAN, 5, NAN}}),
            (std::vector<int32_t>{1, 1, 0, 0, 1}));
  EXPECT_EQ(Highest({{NAN, NAN}, {-kInf, -kInf}, {-kInf, -1e30f}, {NAN, -kInf}, {1, kInf}}),
            (std::vector<int32_t>{0, 0, 1, 0, 1}));
  for (size_t n : {1, 31, 513, 32000}) {
    const std::vector<float> logits = RandomFloats(n, 1, n);
    const auto want = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(Highest({logits})[0], want) << n;
  }
}

TEST_F(SamplingTest, DrawsWhatTheCpuDraws) {
  const SampleRow settings[] = {{.temperature = 0.7f},
                                {.temperature = 1.5f},
                                {.temperature = 1, .top_k = 5},
                                {.temperature = 2, .top_k = 1},
                                {.temperature = 1, .top_p = 0.9f},
                                {.temperature = 0.3f, .top_p = 0.01f},
                                {.temperature = 1, .top_k = 40, .top_p = 0.8f},
                                {.temperature = 3, .min_p = 0.1f},
                                {.temperature = 1, .top_k = 30, .top_p = 0.95f, .min_p = 0.05f}};
  for (int n : {3, 100, 700, 1537}) {
    std::vector<float> logits = RandomFloats(n, 1, 100 + n);
    for (float& logit : logits) logit = std::round(logit * 4) / 2;  // with ties
    logits[1] = NAN;
    logits[2] = -kInf;
    std::vector<SampleRow> rows;
    std::vector<int32_t> want;
    for (SampleRow row : settings) {
      for (int i = 0; i < 4; ++i) {
        row.seed = 0x123456789abcdefu * (i + 1);
        row.position = i == 3 ? int64_t{1} << 33 : i * 7;
        rows.push_back(row);
        want.push_back(Reference(logits, row));
      }
    }
    EXPECT_EQ(Drawn(logits, rows), want) << n;
  }
}

// All as likely: no sum of weights is larger.
TEST_F(SamplingTest, DrawsFromTheWidestVocabulary) {
  const std::vector<float> logits(kMaxSampleVocab, 0.0f);
  const SampleRow rows[] = {{.seed = 3, .temperature = 1}, {.seed = 4, .temperature = 1, .top_p = 0.75f}};
  for (const SampleRow& row : rows) EXPECT_EQ(Drawn(logits, {row})[0], Reference(logits, row));
}

TEST_F(SamplingTest, TemperatureZeroIsTheHighest) {
  const std::vector<float> logits = RandomFloats(1000, 1, 9);
  const auto want = std::max_element(logits.begin(), logits.end()) - logits.begin();
  EXPECT_EQ(Drawn(logits, {SampleRow{.seed = 1, .top_k = 7}, SampleRow{.temperature = 1e-40f}}),
            std::vector<int32_t>(2, static_cast<int32_t>(want)));
}

TEST_F(SamplingTest, SaysWhatIsNoNumberAndWhatWasLikeliest) {
  std::vector<float> logits(700, 0.0f);
  logits[650] = 5;
  std::vector<float> broken = logits;
  broken[699] = NAN;
  SampleRow row = {.temperature = 1};
  for (row.seed = 0; Draw({logits}, {row})[0].token == 650; ++row.seed) {
  }
  const std::vector<DrawnToken> drawn = Draw({logits, broken, logits}, {row, row, {}});
  EXPECT_NE(drawn[0].token, 650);
  EXPECT_EQ(drawn[2].token, 650);
  for (const DrawnToken& each : drawn) EXPECT_EQ(each.argmax, 650);
  EXPECT_FALSE(drawn[0].has_nan);
  EXPECT_TRUE(drawn[1].has_nan);
  EXPECT_FALSE(drawn[2].has_nan);
}

TEST_F(SamplingTest, RefusesWhatItDoesNotServe) {
  const DeviceArray<float> logits(4);
  const DeviceArray<SampleRow> rows(1);
  const DeviceArray<DrawnToken> drawn(1);
  EXPECT_EQ(Sample(nullptr, 1, 4, rows.get(), drawn.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Sample(logits.get(), 1, 0, rows.get(), drawn.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Sample(logits.get(), 1, kMaxSampleVocab + 1, rows.get(), drawn.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Sample(logits.get(), 1, 4, nullptr, drawn.get(), nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Sample(logits.get(), 1, 4, rows.get(), nullptr, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(Sample(logits.get(), 0, 4, rows.get(), drawn.get(), nullptr), cudaSuccess);
}

}  // namespace
}  // namespace gatefold::cuda
