#pragma once

// The instructions that kernels for any device are made of (compute capability 8.0 and more). All
// inline PTX is here, in wgmma.cuh, in wgmma_shapes.cuh and in attention_wgmma.cuh, for which
// tests/gpu/emulator/ has a substitute each. Device code only.
//
// Every operation whose bits matter is named with its rounding, so that two instances of one
// template cannot be contracted differently by the compiler: the row law rests on that.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace gatefold::cuda {

// The shared memory that a launch asked for, in a kernel. (As a function it compiles differently.)
#define GATEFOLD_DYNAMIC_SHARED(type, name) extern __shared__ type name[]

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// For kernels whose launch overlaps (Grid::overlaps in launch.h). What a kernel writes is seen by the next one
// after its wait, and not overwritten by it before: so each of them waits, and what waits for the last has
// waited for all.
__device__ __forceinline__ void LetNextKernelStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Until the kernel before this one has ended.
__device__ __forceinline__ void AwaitKernelBefore() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// All that most of them need, before anything else.
__device__ __forceinline__ void BeginOverlapping() {
  LetNextKernelStart();
  AwaitKernelBefore();
}

// Four words that no kernel writes; where it stands: the compiler may not keep it for later.
__device__ __forceinline__ int4 LoadConstant(const int4* from) {
  int4 words;
  asm volatile("ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from));
  return words;
}

// Writes 16 zero bytes.
__device__ __forceinline__ void ZeroShared16(uint32_t to) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}

// Waits for kThreads threads of the block, whole warps, at barrier `id` from 1 to 15.
template <int kThreads>
__device__ __forceinline__ void SyncThreads(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}
template <int kThreads, int kId>
__device__ __forceinline__ void SyncThreads() {
  asm volatile("bar.sync %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}

// (word & kMask) | kBits, as one instruction: left to the compiler it is two.
template <uint32_t kMask, uint32_t kBits>
__device__ __forceinline__ uint32_t AndOr(uint32_t word) {
  uint32_t to;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(to) : "r"(word), "n"(kMask), "r"(kBits));
  return to;
}

// Copies 16 bytes to shared memory, or writes 16 zero bytes there and reads nothing. Both
// addresses are multiples of 16; `from` points into an allocation in either case.
__device__ __forceinline__ void CopyAsync16(uint32_t to, const void* from, bool read) {
  const int bytes = read ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
               "r"(bytes)
               : "memory");
}

// The same without a choice, and of no more than is asked for.
__device__ __forceinline__ void CopyAsync16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most kPending of this thread's committed groups are unfinished.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
// Lane i gets elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4 of each.
__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// Two matrices, of which lanes 0 to 15 give the rows.
__device__ __forceinline__ void LoadMatrices(uint32_t address, uint32_t (&m)[2]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(m[0]), "=r"(m[1])
               : "r"(address)
               : "memory");
}

// Four, of the matrices' transposes.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t address, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// A matrix in registers, as LoadMatrices leaves it, to its transpose.
__device__ __forceinline__ uint32_t Transposed(uint32_t matrix) {
  uint32_t m;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(m) : "r"(matrix));
  return m;
}

// c[16, 8] += a[16, 16] b[16, 8] in float32. A row of c depends on that row of a alone.
__device__ __forceinline__ void MultiplyAdd(float* c, const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x; exactly 1 for 0 and exactly 0 for -inf. One instruction, the same bits wherever it stands.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// Two bf16, `low` in the lower half.
__device__ __forceinline__ uint32_t PackBF16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

}  // namespace gatefold::cuda
