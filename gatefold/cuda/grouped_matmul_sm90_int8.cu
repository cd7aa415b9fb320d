#include "gatefold/cuda/grouped_matmul_sm90.cuh"

namespace gatefold::cuda {

cudaError_t LaunchInt8Sm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  return sm90::LaunchFormat<WeightFormat::kInt8>(work, n_processors, stream);
}

}  // namespace gatefold::cuda
