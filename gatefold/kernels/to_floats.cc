#include "gatefold/kernels/to_floats.h"

#include <cstring>

namespace gatefold {

void ReadFloats(DType dtype, const void* from, int64_t n, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, n * sizeof(float));
    return;
  }
  const char* bytes = static_cast<const char*>(from);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    to[i] = dtype == DType::kBF16 ? BF16ToFloat(half) : F16ToFloat(half);
  }
}

Buffer ToFloats(const TensorView& view) {
  if (view.data == nullptr) return Buffer();
  Buffer floats(view.n_elements() * sizeof(float));
  ReadFloats(view.dtype, view.data, view.n_elements(), floats.as<float>());
  return floats;
}

}  // namespace gatefold
