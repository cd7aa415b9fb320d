#include "gatefold/device/phase_clock.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace gatefold {

PhaseClock::PhaseClock(int n_phases) {
  for (Kind& kind : kinds_) kind.shares.resize(n_phases);
}

PhaseClock::~PhaseClock() {
  for (const Border& border : borders_) cudaEventDestroy(border.event);
}

void PhaseClock::Begin(int n_rows) {
  kind_ = &kinds_[std::bit_width(static_cast<uint32_t>(n_rows))];
  kind_->n_unseen = std::min(kind_->n_unseen + 1, kEvery);
  looks_ = kind_->n_seen < 2 || kind_->n_unseen == kEvery;
  n_borders_ = 0;
}

bool PhaseClock::Record(cudaStream_t stream) {
  if (n_borders_ == static_cast<int>(borders_.size())) {
    Border border;
    if (cudaEventCreate(&border.event) != cudaSuccess) return false;
    borders_.push_back(border);
  }
  if (cudaEventRecord(borders_[n_borders_].event, stream) != cudaSuccess) return false;
  ++n_borders_;
  return true;
}

void PhaseClock::Enter(int phase, cudaStream_t stream) {
  looks_ = looks_ && Record(stream);
  if (looks_) borders_[n_borders_ - 1].phase = phase;
}

void PhaseClock::Stop(cudaStream_t stream) {
  if (Record(stream)) return;
  looks_ = false;
  n_borders_ = 0;
}

cudaError_t PhaseClock::Await(cudaStream_t stream) {
  cudaError_t error = n_borders_ == 0 ? cudaStreamSynchronize(stream)
                                      : cudaEventSynchronize(borders_[n_borders_ - 1].event);
  if (error != cudaSuccess || !looks_) return error;
  std::vector<double> times(kind_->shares.size());
  double total = 0;
  for (int i = 0; i + 1 < n_borders_; ++i) {
    float milliseconds = 0;
    error = cudaEventElapsedTime(&milliseconds, borders_[i].event, borders_[i + 1].event);
    if (error != cudaSuccess) return error;
    times[borders_[i].phase] += milliseconds;
    total += milliseconds;
  }
  if (total <= 0) return cudaSuccess;
  for (double& time : times) time /= total;
  kind_->shares = times;
  kind_->n_seen = std::min(kind_->n_seen + 1, 2);
  kind_->n_unseen = 0;
  return cudaSuccess;
}

}  // namespace gatefold
