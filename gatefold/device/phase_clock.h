#pragma once

#include <cuda_runtime.h>

#include <array>
#include <vector>

namespace gatefold {

// How a device divides its time between the phases of steps that nobody waits for in between, by
// its own clock. Steps of about as many rows are taken to be divided alike: the first two of them
// are looked at, since the very first is odd, and then one of 16: an event at every border is four
// a layer, beside some fifteen launches. Where others use the stream as well, their work counts to
// the phase that it falls into. Threads: one at a time; all on one stream.
class PhaseClock {
 public:
  explicit PhaseClock(int n_phases);
  ~PhaseClock();
  PhaseClock(const PhaseClock&) = delete;
  PhaseClock& operator=(const PhaseClock&) = delete;

  // A step begins.
  void Begin(int n_rows);
  // What is put on the stream from here on belongs to the phase.
  void Enter(int phase, cudaStream_t stream);
  // The step ends here.
  void Stop(cudaStream_t stream);
  // Waits for that. What the device failed with, if it did.
  cudaError_t Await(cudaStream_t stream);

  // Of the last step of about as many rows that was looked at.
  double share(int phase) const { return kind_->shares[phase]; }

 private:
  static constexpr int kEvery = 16;

  struct Border {
    cudaEvent_t event = nullptr;
    int phase = 0;  // that begins there
  };
  // Steps whose numbers of rows have as many binary digits.
  struct Kind {
    std::vector<double> shares;  // all 0 before one was looked at
    int n_unseen = 0;            // steps since one was looked at to its end
    int n_seen = 0;              // looked at, up to two
  };

  // False: there is no event to be had, and the step is not looked at.
  bool Record(cudaStream_t stream);

  std::array<Kind, 33> kinds_;
  Kind* kind_ = &kinds_[0];      // of this step
  std::vector<Border> borders_;  // as many as a step ever had
  int n_borders_ = 0;            // of this step
  bool looks_ = false;
};

}  // namespace gatefold
