#pragma once

#include <cstddef>

#include "gatefold/base/thread_pool.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold::bench {

// What the machine does at best with the threads of a pool, sampled in about a millisecond, so that
// it can be asked right beside every measurement: other tenants make it drift by a third.
class MachineLimits {
 public:
  explicit MachineLimits(ThreadPool* threads);

  // Reads memory that is in no cache, as one stream per thread.
  double SampleReadBytesPerSecond();
  // Independent float32 multiply-adds in the widest registers there are; one counts as two.
  double SampleFlopsPerSecond();

 private:
  ThreadPool* threads_;
  Buffer memory_;
  size_t at_ = 0;
};

}  // namespace gatefold::bench
