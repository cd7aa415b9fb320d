#pragma once

// Hopper's warpgroup matrix instruction and its asynchronous copies (PTX ISA, wgmma.mma_async,
// cp.async.bulk, mbarrier). For sm_90a only.

#include <cstdint>

namespace gatefold::cuda::sm90 {

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}

__device__ inline void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

__device__ inline void BarrierExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

__device__ inline void BarrierWait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Global to shared, `bytes` a multiple of 16; the barrier counts them.
__device__ inline void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
      : "memory");
}

// Shared-memory matrix of 64 inputs (128 bytes) per row, swizzled as tiles.h says, 1024-aligned:
// 8-row groups lie 1024 bytes apart (stride byte offset 64 in units of 16), layout 1 = 128-byte swizzle.
__device__ inline uint64_t MatrixDescriptor(const void* shared) {
  return static_cast<uint64_t>((SharedAddress(shared) & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) |
         (1ull << 62);
}
// To the next 16 inputs of the same rows.
inline constexpr uint64_t kNextInputs = 32 >> 4;

__device__ inline void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The compiler must not read sums before the wait that makes them valid.
template <int kSums>
__device__ inline void HoldSums(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// sums[64 outputs, n rows] (+)= a[64 outputs, 16 inputs] b[n rows, 16 inputs]; `add` 0: sums were garbage.
// kSums = n / 2 per thread.
__device__ inline void Wgmma(float (&d)[4], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(add));
}

#define GATEFOLD_SUMS8(i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),   \
      "+f"(d[i + 6]), "+f"(d[i + 7])

__device__ inline void Wgmma(float (&d)[8], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, p, 1, 1, "
      "0, 0;\n}\n"
      : GATEFOLD_SUMS8(0)
      : "l"(a), "l"(b), "r"(add));
}

__device__ inline void Wgmma(float (&d)[16], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,"
      "%13,%14,%15}, %16, %17, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8)
      : "l"(a), "l"(b), "r"(add));
}

__device__ inline void Wgmma(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,"
      "%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, "
      "0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24)
      : "l"(a), "l"(b), "r"(add));
}

__device__ inline void Wgmma(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,"
      "%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,"
      "%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,"
      "%63}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : GATEFOLD_SUMS8(0), GATEFOLD_SUMS8(8), GATEFOLD_SUMS8(16), GATEFOLD_SUMS8(24), GATEFOLD_SUMS8(32),
        GATEFOLD_SUMS8(40), GATEFOLD_SUMS8(48), GATEFOLD_SUMS8(56)
      : "l"(a), "l"(b), "r"(add));
}
#undef GATEFOLD_SUMS8

}  // namespace gatefold::cuda::sm90
