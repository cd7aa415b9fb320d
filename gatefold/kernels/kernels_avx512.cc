// AVX-512: the virtual vector is one register.

#include <immintrin.h>

#include <cstdint>

#include "gatefold/kernels/kernel_table.h"

namespace gatefold::kernels {
namespace {

constexpr char kIsaName[] = "avx512";
constexpr int kTileRows = 6;        // 6 x 4 sums, 6 inputs, 1 weight: 31 of 32 registers
constexpr int kConvertRows = 5;     // leaves registers to what converts a quantised weight
constexpr int kConvertedRows = 24;  // all: to convert again costs less than to read back

using Vec = __m512;
using Reg = Vec;
constexpr int kRegs = 1;
constexpr int kRegLanes = 16;
// Attention: 8 x 2 sums, 2 keys, 1 query; 4 x 4 sums, 4 values, 1 weight.
constexpr int kScoreQueries = 8, kScoreBlocks = 2;
constexpr int kValueQueries = 4, kValueVecs = 4;

inline Vec Set(float x) { return _mm512_set1_ps(x); }
inline Vec Load(const float* x) { return _mm512_loadu_ps(x); }
inline void Store(float* x, Vec v) { _mm512_storeu_ps(x, v); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Reg LoadReg(const float* x) { return Load(x); }
inline void StoreReg(float* x, Reg v) { Store(x, v); }
inline Reg FmaReg(Reg a, Reg b, Reg c) { return Fma(a, b, c); }
inline Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline void Prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
inline void PrefetchFar(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

inline Vec PowerOfTwo(Vec t) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)));
}
inline Reg LowHalves(const char* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
inline Reg HighHalves(const char* p) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Reg LoadF16(const char* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Reg LoadBf16(const char* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline Reg LoadInt8(const char* p, float scale) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return Mul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), Set(scale));
}
// By a table of all 16 weights: two instructions where a conversion and a product are four.
inline Reg LoadInt4(const char* p, int nibble, float scale) {
  const Vec q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  const __m512i index = _mm512_srli_epi32(_mm512_loadu_si512(p), 4 * nibble);  // low 4 bits count
  return _mm512_permutexvar_ps(index, Mul(q, Set(scale)));
}
inline float Sum(Vec v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
// y[i]: the i-th folded by Sum's tree, the four trees side by side.
template <typename Operation>
inline void Fold4(Vec a, Vec b, Vec c, Vec d, float* y, Operation op) {
  const Vec ab = op(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  const Vec cd = op(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  Vec four = op(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  four = op(four, _mm512_permute_ps(four, 0x4e));
  four = op(four, _mm512_movehdup_ps(four));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(y, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, four)));
}
inline void Sum4(Vec a, Vec b, Vec c, Vec d, float* y) { Fold4(a, b, c, d, y, Add); }
inline void Max4(Vec a, Vec b, Vec c, Vec d, float* y) { Fold4(a, b, c, d, y, Max); }
// Lanes [first, end) of v, `fill` elsewhere.
inline Vec Keep(Vec v, int first, int end, float fill) {
  const __mmask16 mask = static_cast<__mmask16>((0xffffu >> (16 - end)) & (0xffffu << first));
  return _mm512_mask_blend_ps(mask, _mm512_set1_ps(fill), v);
}

#include "gatefold/kernels/vector_kernels.h"

}  // namespace

const KernelTable* Avx512Kernels() { return &kTable; }

}  // namespace gatefold::kernels
