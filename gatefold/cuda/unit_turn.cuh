#pragma once

// Who multiplies which unit of a grouped product on Hopper. Device code for sm_90a only.

#include "gatefold/cuda/grouped_matmul.h"
#include "gatefold/cuda/wgmma.cuh"

namespace gatefold::cuda::sm90 {

// Numbers of units from a cluster's first block to its second: more of them than either can be ahead of the
// other, since they fill their stages together.
struct Letters {
  static constexpr int kNumber = 8;
  uint64_t sent[kNumber];
  int unit[kNumber];
};

// Which unit comes next, for the one thread of a block that copies. Narrow ones are all alike, and each block
// takes every n-th. Wide ones are not, so a cluster takes whichever is next of all: thus clusters end
// together, and those that read the same weights start one after the other, while L2 still has them.
template <typename S>
class Turn {
 public:
  __device__ Turn(const GroupedMatMul& work, Letters* letters)
      : turns_(work.turns), letters_(letters), unit_(static_cast<int>(blockIdx.x) / S::kCluster) {
    if constexpr (S::kWide) rank_ = static_cast<int>(ClusterRank());
  }

  __device__ int rank() const { return rank_; }
  __device__ int unit() const { return unit_; }

  // While this one is copied: the answer takes its time.
  __device__ void AskForNext() {
    if constexpr (S::kWide) {
      if (rank_ == 0) next_ = NumClusters() + atomicAdd(&turns_->n_taken, 1);
    }
  }

  __device__ void Next() {
    if constexpr (!S::kWide) {
      unit_ += static_cast<int>(gridDim.x);
    } else {
      const int letter = n_letters_ % Letters::kNumber;
      if (rank_ == 0) {
        unit_ = next_;
        ClusterSend(&letters_->unit[letter], unit_, &letters_->sent[letter], 1);
      } else {
        ClusterBarrierWait(&letters_->sent[letter], n_letters_ / Letters::kNumber % 2);
        unit_ = letters_->unit[letter];
      }
      ++n_letters_;
    }
  }

  // There are no more: the last cluster to find out leaves the counters as they were.
  __device__ void End() {
    if constexpr (S::kWide) {
      if (rank_ != 0) return;
      __threadfence();
      if (atomicAdd(&turns_->n_ended, 1) == NumClusters() - 1) *turns_ = UnitTurns{};
    }
  }

 private:
  __device__ static int NumClusters() { return static_cast<int>(gridDim.x) / S::kCluster; }

  UnitTurns* const turns_;
  Letters* const letters_;
  int rank_ = 0, unit_, next_ = 0, n_letters_ = 0;
};

}  // namespace gatefold::cuda::sm90
