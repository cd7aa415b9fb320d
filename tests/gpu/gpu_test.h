#pragma once

// What tests on a device share. Every test skips, and says so, where there is none.

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/gpu/bf16.h"

namespace gatefold::cuda {

#define EXPECT_CUDA(expression) \
  do {                          \
    const cudaError_t error_ = (expression); \
    EXPECT_EQ(error_, cudaSuccess) << #expression << ": " << cudaGetErrorString(error_); \
  } while (false)

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
      cudaGetLastError();
      GTEST_SKIP() << "skipped: no CUDA device";
    }
  }
};

// Device memory, freed at the end of its scope. Made by size it is NaN at first, so that what nobody
// wrote is seen.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n) {
    EXPECT_CUDA(cudaMalloc(&data_, n * sizeof(T)));
    if (n > 0) Fill(0xFF);
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    EXPECT_CUDA(cudaMemcpy(data_, host.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  size_t size() const { return n_; }
  // Every byte: 0xFF makes NaN of floats and of bfloat16.
  void Fill(int byte) { EXPECT_CUDA(cudaMemset(data_, byte, n_ * sizeof(T))); }
  std::vector<T> Read() const {
    std::vector<T> host(n_);
    EXPECT_CUDA(cudaMemcpy(host.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  const size_t n_;
  T* data_ = nullptr;
};

inline std::vector<float> RandomFloats(size_t n, float deviation, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator);
  return values;
}

// |a - b| / |b| over all elements; NaN anywhere makes it NaN.
inline double RelativeError(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

// Index of the first element whose bits differ, -1 if none does.
template <typename T>
int64_t FirstDifference(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return static_cast<int64_t>(i);
  }
  return -1;
}

}  // namespace gatefold::cuda
