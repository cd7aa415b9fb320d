#pragma once

// The two products of attention as Hopper's warpgroup instruction (PTX ISA, wgmma.mma_async). For
// sm_90a only.

#include <cstdint>

namespace gatefold::cuda::sm90 {

#define GATEFOLD_REGISTERS8(c, i) \
  c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define GATEFOLD_REGISTERS32(c, i)                                                          \
  GATEFOLD_REGISTERS8(c, i), GATEFOLD_REGISTERS8(c, i + 8), GATEFOLD_REGISTERS8(c, i + 16), \
      GATEFOLD_REGISTERS8(c, i + 24)
#define GATEFOLD_NAMES32                                                                           \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31"

// d[64 pairs, 64 positions] = or += a[64, 16] b[64, 16].
__device__ __forceinline__ void WgmmaScores(float (&d)[32], uint64_t a, uint64_t b, bool first) {
  if (first) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" GATEFOLD_NAMES32
                 "}, %32, %33, 0, 1, 1, 0, 0;"
                 : GATEFOLD_REGISTERS32("=f", 0)
                 : "l"(a), "l"(b));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" GATEFOLD_NAMES32
                 "}, %32, %33, 1, 1, 1, 0, 0;"
                 : GATEFOLD_REGISTERS32("+f", 0)
                 : "l"(a), "l"(b));
  }
}

// d[64 pairs, dims] += a[64, 16] b[16, dims].
__device__ __forceinline__ void WgmmaValues(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" GATEFOLD_NAMES32
               "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
               : GATEFOLD_REGISTERS32("+f", 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void WgmmaValues(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" GATEFOLD_NAMES32
      ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,"
      "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
      : GATEFOLD_REGISTERS32("+f", 0), GATEFOLD_REGISTERS32("+f", 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef GATEFOLD_NAMES32
#undef GATEFOLD_REGISTERS32
#undef GATEFOLD_REGISTERS8

}  // namespace gatefold::cuda::sm90
