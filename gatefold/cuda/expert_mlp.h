#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

// One expert on the device: y = w2 (silu(w1 x + b1) * (w3 x + b3)) + b2 with weights in tiles
// (tiles.h): w13 of ExpertShape::w13(), w2 of ExpertShape::w2(). Biases are float32, or null.
struct DeviceExpert {
  const void* w13 = nullptr;
  const void* w2 = nullptr;
  const float* b1 = nullptr;
  const float* b3 = nullptr;
  const float* b2 = nullptr;
};

struct ExpertShape {
  int64_t d_model = 0;
  int64_t d_ff = 0;
  WeightFormat format = WeightFormat::kBF16;

  TileShape w13() const { return {d_ff, d_model, true, format}; }
  TileShape w2() const { return {d_model, d_ff, false, format}; }
  size_t weight_bytes() const { return w13().weight_bytes() + w2().weight_bytes(); }
};

// Rows that visit one expert: row rows[i] of x gives row slots[i] of y. Host memory.
struct ExpertVisits {
  const DeviceExpert* expert = nullptr;
  const int32_t* rows = nullptr;
  const int32_t* slots = nullptr;
  int n_rows = 0;
};

// The order in which a batch multiplies them: by the greatest width of a wide unit (see WidestUnit). Narrow
// units are all alike, and where there is nothing else visits stay as they are.
std::vector<const ExpertVisits*> WidestFirst(WeightFormat format, const ExpertVisits* visits, int n);

// Computes batches of visits of experts of one shape, in three launches whatever their number: gather,
// gate and up, down. Activations between them are bfloat16, sums float32.
// Owns the memory that one batch needs besides weights, x and y, and grows it as batches do.
// Threads: one batch at a time; batches of two objects on two streams may overlap.
class ExpertMlp {
 public:
  explicit ExpertMlp(const ExpertShape& shape) : shape_(shape) {}
  ~ExpertMlp();
  ExpertMlp(const ExpertMlp&) = delete;
  ExpertMlp& operator=(const ExpertMlp&) = delete;

  // x: device, float32 [*, d_model]. y: device, float32 [*, d_model], written where slots point.
  // Asynchronous on `stream`, except that it waits for the batch before this one to leave the host
  // memory that it shares with it.
  cudaError_t Run(const ExpertVisits* visits, int n_visits, const float* x, float* y,
                  cudaStream_t stream);

 private:
  cudaError_t Reserve(int n_visits, int64_t n_rows);

  const ExpertShape shape_;
  int64_t capacity_rows_ = 0;
  int capacity_visits_ = 0;
  char* plan_host_ = nullptr;    // pinned: two tables of groups, sources and slots
  char* plan_ = nullptr;         // the same on the device
  char* activations_ = nullptr;  // of x, then of what lies between the products
  DeviceMemory turns_;
  cudaEvent_t plan_sent_ = nullptr;
};

}  // namespace gatefold::cuda
