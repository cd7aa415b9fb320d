#pragma once

// The emulator's substitute for gatefold/cuda/warp_ops.h.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace gatefold::cuda {

#define GATEFOLD_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(gatefold::cuda::emulator::SharedMemory())

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

inline uint32_t SharedAddress(const void* pointer) { return emulator::SharedOffset(pointer); }
inline void LetNextKernelStart() {}
inline void AwaitKernelBefore() { emulator::AwaitKernelBefore(); }
inline void BeginOverlapping() { AwaitKernelBefore(); }
inline int4 LoadConstant(const int4* from) { return *from; }
inline void ZeroShared16(uint32_t to) { std::memset(emulator::SharedPointer(to, 16), 0, 16); }

template <int kThreads>
void SyncThreads(int id) {
  emulator::MeetBlock(id, kThreads, false);
}
template <int kThreads, int kId>
void SyncThreads() {
  emulator::MeetBlock(kId, kThreads, false);
}

template <uint32_t kMask, uint32_t kBits>
uint32_t AndOr(uint32_t word) {
  return (word & kMask) | kBits;
}

inline void CopyAsync16(uint32_t to, const void* from, bool read) {
  emulator::CopyAsync16(to, from, read);
}
inline void CopyAsync16(uint32_t to, const void* from) { emulator::CopyAsync16(to, from, true); }
inline void CommitCopies() { emulator::CommitCopies(); }
template <int kPending>
void WaitForCopies() {
  emulator::AwaitCopies(kPending);
}

inline void LoadMatrices(uint32_t address, uint32_t (&m)[4]) {
  emulator::LoadMatrices(address, m, 4, false);
}
inline void LoadMatrices(uint32_t address, uint32_t (&m)[2]) {
  emulator::LoadMatrices(address, m, 2, false);
}
inline void LoadMatricesTransposed(uint32_t address, uint32_t (&m)[4]) {
  emulator::LoadMatrices(address, m, 4, true);
}
inline uint32_t Transposed(uint32_t matrix) { return emulator::Transposed(matrix); }
inline void MultiplyAdd(float* c, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::MultiplyAdd(c, a, b0, b1);
}

inline float Exp2(float x) { return std::exp2(x); }

inline uint32_t PackBF16(float low, float high) {
  return std::bit_cast<uint32_t>(__floats2bfloat162_rn(low, high));
}

}  // namespace gatefold::cuda
