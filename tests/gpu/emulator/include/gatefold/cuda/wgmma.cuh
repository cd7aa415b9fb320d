#pragma once

// The emulator's substitute for gatefold/cuda/wgmma.cuh.

#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda::sm90 {

inline void FenceAsync() {}
template <int kRegisters>
void GiveRegisters() {}
template <int kRegisters>
void TakeRegisters() {}
template <int kNumber>
void KeepBranch() {}

inline void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  emulator::BarrierInit(barrier, arrivals);
}
inline void BarrierArrive(uint64_t* barrier) { emulator::BarrierArrive(barrier); }
inline void BarrierExpect(uint64_t* barrier, uint32_t bytes) {
  emulator::BarrierExpect(barrier, bytes);
}
inline void BarrierWait(uint64_t* barrier, uint32_t parity) {
  emulator::BarrierWait(barrier, parity);
}
inline void ClusterArrive(uint64_t* barrier, uint32_t rank) {
  emulator::BarrierArrive(static_cast<uint64_t*>(emulator::OfBlock(barrier, rank)));
}
inline void ClusterSend(int* place, int value, uint64_t* barrier, uint32_t rank) {
  *static_cast<int*>(emulator::OfBlock(place, rank)) = value;
  ClusterArrive(barrier, rank);
}
inline void ClusterBarrierWait(uint64_t* barrier, uint32_t parity) { BarrierWait(barrier, parity); }
inline uint32_t ClusterRank() { return emulator::RankInCluster(); }
inline void FenceBarriers() {}
inline void ClusterSync() { emulator::MeetCluster(); }

inline void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  emulator::BulkCopy(shared, global, bytes, barrier, 1u << ClusterRank());
}
inline void BulkCopyToCluster(void* shared, const void* global, uint32_t bytes, uint64_t* barrier,
                              uint16_t blocks) {
  emulator::BulkCopy(shared, global, bytes, barrier, blocks);
}
inline void BulkCopyOnce(void* to, const void* from, int bytes, uint64_t* barrier, uint64_t) {
  BulkCopy(to, from, static_cast<uint32_t>(bytes), barrier);
}
inline uint64_t ReadOncePolicy() { return 0; }

inline void WgmmaFence() {}
inline void WgmmaCommit() { emulator::CommitProducts(); }
template <int kPending>
void WgmmaWait() {
  emulator::AwaitProducts(kPending);
}
template <int kSums>
void HoldSums(float (&)[kSums]) {}
inline void HoldOperands(uint32_t (&)[4][4]) {}

}  // namespace gatefold::cuda::sm90
