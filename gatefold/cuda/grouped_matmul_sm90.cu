#include "gatefold/cuda/grouped_matmul_sm90.cuh"

namespace gatefold::cuda {

cudaError_t LaunchSm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  switch (work.shape.format) {
    case WeightFormat::kBF16:
      return sm90::LaunchFormat<WeightFormat::kBF16>(work, n_processors, stream);
    case WeightFormat::kInt8:
      return LaunchInt8Sm90(work, n_processors, stream);
    case WeightFormat::kInt4:
      return LaunchInt4Sm90(work, n_processors, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace gatefold::cuda
