#include "gatefold/device/phase_clock.h"

namespace gatefold {

PhaseClock::~PhaseClock() {
  for (const Border& border : borders_) cudaEventDestroy(border.event);
}

void PhaseClock::Begin() {
  looks_ = n_steps_ % kEvery == 0;
  ++n_steps_;
  n_borders_ = 0;
  error_ = cudaSuccess;
}

void PhaseClock::Record(cudaStream_t stream) {
  if (error_ != cudaSuccess) return;
  if (n_borders_ == static_cast<int>(borders_.size())) {
    Border border;
    error_ = cudaEventCreate(&border.event);
    if (error_ != cudaSuccess) return;
    borders_.push_back(border);
  }
  error_ = cudaEventRecord(borders_[n_borders_].event, stream);
  ++n_borders_;
}

void PhaseClock::Enter(int phase, cudaStream_t stream) {
  if (!looks_) return;
  Record(stream);
  if (error_ == cudaSuccess) borders_[n_borders_ - 1].phase = phase;
}

void PhaseClock::Stop(cudaStream_t stream) { Record(stream); }

cudaError_t PhaseClock::Await() {
  if (error_ != cudaSuccess) return error_;
  error_ = cudaEventSynchronize(borders_[n_borders_ - 1].event);
  if (error_ != cudaSuccess || n_borders_ == 1) return error_;
  std::vector<double> times(shares_.size(), 0.0);
  double total = 0;
  for (int i = 0; i + 1 < n_borders_; ++i) {
    float milliseconds = 0;
    error_ = cudaEventElapsedTime(&milliseconds, borders_[i].event, borders_[i + 1].event);
    if (error_ != cudaSuccess) return error_;
    times[borders_[i].phase] += milliseconds;
    total += milliseconds;
  }
  for (size_t phase = 0; phase < times.size() && total > 0; ++phase) {
    shares_[phase] = times[phase] / total;
  }
  return cudaSuccess;
}

}  // namespace gatefold
