#pragma once

// Hopper's warpgroup matrix instruction in the widths that are used (PTX ISA, wgmma.mma_async).
// For sm_90a only.
//
// sums[64 outputs, n rows] += a[64 outputs, 16 inputs] b[n rows, 16 inputs]; n / 2 sums per thread. a: a descriptor, or registers (outputs lane / 4 and 8 more of the
// warp's 16, inputs 2 (lane % 4) and one more, then the same of inputs 8 on), which nobody may write
// before the wait that ends the product. The bits are the same for both.

#include <cstdint>

namespace gatefold::cuda::sm90 {

#define GATEFOLD_SUMS8(i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),   \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define GATEFOLD_A4 "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])

__device__ inline void Wgmma(float (&d)[4], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3"
      "}, %4, %5, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[8], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7"
      "}, %8, %9, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[16], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15}, %16, %17, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,"
      "%31}, %32, %33, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[48], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,"
      "%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
      "}, %48, %49, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[80], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79}, %80, %81, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[96], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95}, %96, %97, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[112], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"
      "%111}, %112, %113, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88),
        GATEFOLD_SUMS8(96), GATEFOLD_SUMS8(104)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[128], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"
      "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
      "}, %128, %129, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88),
        GATEFOLD_SUMS8(96), GATEFOLD_SUMS8(104), GATEFOLD_SUMS8(112), GATEFOLD_SUMS8(120)
      : "l"(a), "l"(b));
}

__device__ inline void Wgmma(float (&d)[4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3"
      "}, {%4,%5,%6,%7}, %8, p, 1, 1, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[8], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7"
      "}, {%8,%9,%10,%11}, %12, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[16], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,"
      "%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[48], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,"
      "%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,"
      "%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
      "}, {%48,%49,%50,%51}, %52, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[80], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79}, {%80,%81,%82,%83}, %84, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[96], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95}, {%96,%97,%98,%99}, %100, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[112], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"
      "%111}, {%112,%113,%114,%115}, %116, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88),
        GATEFOLD_SUMS8(96), GATEFOLD_SUMS8(104)
      : GATEFOLD_A4, "l"(b));
}

__device__ inline void Wgmma(float (&d)[128], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,"
      "%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,"
      "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,"
      "%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,"
      "%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"
      "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
      "}, {%128,%129,%130,%131}, %132, p, 1, 1, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24),
        GATEFOLD_SUMS8(32), GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56),
        GATEFOLD_SUMS8(64), GATEFOLD_SUMS8(72), GATEFOLD_SUMS8(80), GATEFOLD_SUMS8(88),
        GATEFOLD_SUMS8(96), GATEFOLD_SUMS8(104), GATEFOLD_SUMS8(112), GATEFOLD_SUMS8(120)
      : GATEFOLD_A4, "l"(b));
}

#undef GATEFOLD_A4
#undef GATEFOLD_SUMS8

}  // namespace gatefold::cuda::sm90
