#pragma once

#include <cuda_runtime.h>

#include <vector>

namespace gatefold {

// How a device divides its time between the phases of steps that nobody waits for in between, by
// its own clock. Looked at in one step of 16: an event at every border costs as much as a small
// kernel. Threads: one at a time; all on one stream.
class PhaseClock {
 public:
  explicit PhaseClock(int n_phases) : shares_(n_phases, 0.0) {}
  ~PhaseClock();
  PhaseClock(const PhaseClock&) = delete;
  PhaseClock& operator=(const PhaseClock&) = delete;

  // A step begins.
  void Begin();
  // What is put on the stream from here on belongs to the phase.
  void Enter(int phase, cudaStream_t stream);
  // The step ends here.
  void Stop(cudaStream_t stream);
  // Waits for that. What the device failed with, if it did.
  cudaError_t Await();

  // Of the last step that was looked at; 0 before there is one.
  double share(int phase) const { return shares_[phase]; }

 private:
  static constexpr int kEvery = 16;

  void Record(cudaStream_t stream);

  struct Border {
    cudaEvent_t event = nullptr;
    int phase = 0;  // that begins there
  };
  std::vector<double> shares_;
  std::vector<Border> borders_;  // as many as a step ever had
  int n_borders_ = 0;            // of this step
  int n_steps_ = 0;
  bool looks_ = false;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace gatefold
