// The readable reference: the virtual vector is an array. Runs anywhere, slowly, and stays forever.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "gatefold/kernels/kernel_table.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold::kernels {
namespace {

constexpr char kIsaName[] = "scalar";
constexpr int kTileRows = 1;
constexpr int kConvertRows = 1;
constexpr int kConvertedRows = 1;

struct Vec {
  float lane[16];
};

using Reg = Vec;
constexpr int kRegs = 1;
constexpr int kRegLanes = 16;
constexpr int kScoreQueries = 1, kScoreBlocks = 1;
constexpr int kValueQueries = 1, kValueVecs = 1;

template <typename Operation>
inline Vec ForEachLane(Operation operation) {
  Vec result;
  for (int j = 0; j < 16; ++j) result.lane[j] = operation(j);
  return result;
}

inline Vec Set(float x) {
  return ForEachLane([&](int) { return x; });
}
inline Vec Load(const float* x) {
  return ForEachLane([&](int j) { return x[j]; });
}
inline void Store(float* x, const Vec& v) { std::memcpy(x, v.lane, sizeof v.lane); }
inline Vec Fma(const Vec& a, const Vec& b, const Vec& c) {
  return ForEachLane([&](int j) { return std::fma(a.lane[j], b.lane[j], c.lane[j]); });
}
inline Reg LoadReg(const float* x) { return Load(x); }
inline Reg FmaReg(const Reg& a, const Reg& b, const Reg& c) { return Fma(a, b, c); }
inline Vec Add(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] + b.lane[j]; });
}
inline Vec Sub(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] - b.lane[j]; });
}
inline Vec Mul(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] * b.lane[j]; });
}
inline Vec Div(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] / b.lane[j]; });
}
// NaN: the second operand, as the vector instructions do.
inline Vec Min(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] < b.lane[j] ? a.lane[j] : b.lane[j]; });
}
inline Vec Max(const Vec& a, const Vec& b) {
  return ForEachLane([&](int j) { return a.lane[j] > b.lane[j] ? a.lane[j] : b.lane[j]; });
}
inline void Prefetch(const char*) {}
inline void PrefetchFar(const char*) {}

inline Vec PowerOfTwo(const Vec& t) {
  return ForEachLane([&](int j) {
    uint32_t bits;
    std::memcpy(&bits, &t.lane[j], sizeof bits);
    bits = (bits << 23) + (127u << 23);
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  });
}
inline uint16_t Half(const char* p, int index) {
  uint16_t half;
  std::memcpy(&half, p + 2 * index, sizeof half);
  return half;
}
inline Vec LowHalves(const char* p) {
  return ForEachLane([&](int j) { return BF16ToFloat(Half(p, 2 * j)); });
}
inline Vec HighHalves(const char* p) {
  return ForEachLane([&](int j) { return BF16ToFloat(Half(p, 2 * j + 1)); });
}
inline Vec LoadF16(const char* p) {
  return ForEachLane([&](int j) { return F16ToFloat(Half(p, j)); });
}
inline void StoreReg(float* x, const Reg& v) { Store(x, v); }
inline Vec LoadBf16(const char* p) {
  return ForEachLane([&](int j) { return BF16ToFloat(Half(p, j)); });
}
inline Vec LoadInt8(const char* p, float scale) {
  return ForEachLane([&](int j) { return static_cast<float>(static_cast<int8_t>(p[j])) * scale; });
}
// 16 words of 8 nibbles.
inline Vec LoadInt4(const char* p, int nibble, float scale) {
  return ForEachLane([&](int j) {
    const int q = static_cast<unsigned char>(p[4 * j + nibble / 2]) >> (nibble % 2 * 4) & 15;
    return static_cast<float>(q < 8 ? q : q - 16) * scale;
  });
}
inline float Sum(const Vec& v) {
  float sums[16];
  std::memcpy(sums, v.lane, sizeof sums);
  for (int half = 8; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sums[j] = sums[j] + sums[j + half];
  }
  return sums[0];
}
inline void Sum4(const Vec& a, const Vec& b, const Vec& c, const Vec& d, float* y) {
  y[0] = Sum(a);
  y[1] = Sum(b);
  y[2] = Sum(c);
  y[3] = Sum(d);
}
inline void Max4(const Vec& a, const Vec& b, const Vec& c, const Vec& d, float* y) {
  const Vec* vecs[4] = {&a, &b, &c, &d};
  for (int i = 0; i < 4; ++i) {
    y[i] = vecs[i]->lane[0];
    for (float lane : vecs[i]->lane) y[i] = lane > y[i] ? lane : y[i];
  }
}
// Lanes [first, end) of v, `fill` elsewhere.
inline Vec Keep(const Vec& v, int first, int end, float fill) {
  return ForEachLane([&](int j) { return j >= first && j < end ? v.lane[j] : fill; });
}

#include "gatefold/kernels/vector_kernels.h"

}  // namespace

const KernelTable* ScalarKernels() { return &kTable; }

}  // namespace gatefold::kernels
