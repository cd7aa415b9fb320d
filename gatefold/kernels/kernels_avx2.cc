// AVX2 with FMA and F16C: the virtual vector is two registers.

#include <immintrin.h>

#include <cstdint>

#include "gatefold/kernels/kernel_table.h"

namespace gatefold::kernels {
namespace {

constexpr char kIsaName[] = "avx2";
constexpr int kTileRows = 3;     // 3 x 4 sums, 3 inputs, 1 weight: all 16 registers
constexpr int kConvertRows = 2;  // with 3, what converts a quantised weight finds no register
constexpr int kConvertedRows = 2;

using Reg = __m256;
constexpr int kRegs = 2;
constexpr int kRegLanes = 8;
// Attention, in virtual vectors: 2 x 2 sums, 2 keys, 1 query; 1 x 4 sums, 1 weight.
constexpr int kScoreQueries = 2, kScoreBlocks = 2;
constexpr int kValueQueries = 1, kValueVecs = 4;

struct Vec {
  __m256 low, high;
};

inline Vec Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec Load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
inline void Store(float* x, Vec v) {
  _mm256_storeu_ps(x, v.low);
  _mm256_storeu_ps(x + 8, v.high);
}
inline Reg LoadReg(const float* x) { return _mm256_loadu_ps(x); }
inline void StoreReg(float* x, Reg v) { _mm256_storeu_ps(x, v); }
inline Reg FmaReg(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Vec Add(Vec a, Vec b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Vec Sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Vec Mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Vec Div(Vec a, Vec b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Vec Min(Vec a, Vec b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
inline Vec Max(Vec a, Vec b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline void Prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
inline void PrefetchFar(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

inline __m256 PowerOfTwo8(__m256 t) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)));
}
inline Vec PowerOfTwo(Vec t) { return {PowerOfTwo8(t.low), PowerOfTwo8(t.high)}; }
inline __m256i LoadWords(const char* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Reg LowHalves(const char* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(LoadWords(p), 16));
}
inline Reg HighHalves(const char* p) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm256_castsi256_ps(_mm256_and_si256(LoadWords(p), mask));
}
inline Reg LoadF16(const char* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Reg LoadBf16(const char* p) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline Reg LoadInt8(const char* p, float scale) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_set1_ps(scale));
}
inline Reg LoadInt4(const char* p, int nibble, float scale) {
  const __m256i q = _mm256_srai_epi32(_mm256_slli_epi32(LoadWords(p), 28 - 4 * nibble), 28);
  return _mm256_mul_ps(_mm256_cvtepi32_ps(q), _mm256_set1_ps(scale));
}
inline float Sum(Vec v) {
  const __m256 eight = _mm256_add_ps(v.low, v.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline __m256 Add8(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
inline __m256 Max8(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
// y[i]: the i-th folded by Sum's tree, the four trees side by side.
template <typename Operation>
inline void Fold4(Vec a, Vec b, Vec c, Vec d, float* y, Operation op) {
  const __m256 a8 = op(a.low, a.high), b8 = op(b.low, b.high);
  const __m256 c8 = op(c.low, c.high), d8 = op(d.low, d.high);
  const __m256 ab = op(_mm256_permute2f128_ps(a8, b8, 0x20), _mm256_permute2f128_ps(a8, b8, 0x31));
  const __m256 cd = op(_mm256_permute2f128_ps(c8, d8, 0x20), _mm256_permute2f128_ps(c8, d8, 0x31));
  // Two left of each: a a c c | b b d d.
  __m256 two = op(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  two = op(two, _mm256_movehdup_ps(two));
  const __m128 ac = _mm256_castps256_ps128(two), bd = _mm256_extractf128_ps(two, 1);
  const __m128 mixed = _mm_shuffle_ps(ac, bd, 0x88);  // a c b d
  _mm_storeu_ps(y, _mm_shuffle_ps(mixed, mixed, 0xd8));
}
inline void Sum4(Vec a, Vec b, Vec c, Vec d, float* y) { Fold4(a, b, c, d, y, Add8); }
inline void Max4(Vec a, Vec b, Vec c, Vec d, float* y) { Fold4(a, b, c, d, y, Max8); }
// Lanes [first, end) of v, `fill` elsewhere.
inline __m256 Keep8(__m256 v, __m256i lane, int first, int end, float fill) {
  const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane);
  const __m256i above = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1));
  return _mm256_blendv_ps(_mm256_set1_ps(fill), v,
                          _mm256_castsi256_ps(_mm256_and_si256(below, above)));
}
inline Vec Keep(Vec v, int first, int end, float fill) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i upper = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
  return {Keep8(v.low, lane, first, end, fill), Keep8(v.high, upper, first, end, fill)};
}

#include "gatefold/kernels/vector_kernels.h"

}  // namespace

const KernelTable* Avx2Kernels() { return &kTable; }

}  // namespace gatefold::kernels
