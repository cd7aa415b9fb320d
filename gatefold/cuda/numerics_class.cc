#include "gatefold/cuda/numerics_class.h"

#include <numeric>
#include <vector>

#include "gatefold/cuda/attention_self_test.h"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/pack_weights.h"
#include "gatefold/cuda/self_test_numbers.h"

namespace gatefold::cuda {
namespace {

constexpr int64_t kModel = 328, kIntermediate = 200;
constexpr int kFew = 9, kMany = 70;  // rows of two experts

// Frees what a test allocates, however it ends.
class Memory {
 public:
  ~Memory() {
    for (void* p : pieces_) cudaFree(p);
  }
  cudaError_t Allocate(size_t bytes, char** p) {
    const cudaError_t error = cudaMalloc(p, bytes);
    if (error != cudaSuccess) return error;
    pieces_.push_back(*p);
    return cudaMemset(*p, 0, bytes);
  }

 private:
  std::vector<void*> pieces_;
};

cudaError_t MakeWeights(const TileShape& shape, int matrix, uint32_t seed, char* tiles, Memory* memory) {
  const std::vector<uint16_t> values = HalfNumbers(shape.n_out * shape.n_in, seed);
  char* rows;
  GF_CUDA_RETURN_IF_ERROR(memory->Allocate(values.size() * 2, &rows));
  GF_CUDA_RETURN_IF_ERROR(cudaMemcpy(rows, values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  return PackWeights(shape, rows, 0, shape.n_out, matrix, tiles, nullptr);
}

cudaError_t ExpertSelfTest(WeightFormat format, std::vector<float>* answers) {
  const ExpertShape shape{kModel, kIntermediate, format};
  Memory memory;
  char *w13, *w2, *x, *y;
  constexpr int kRows = kFew + kMany;
  const std::vector<float> rows = Numbers(kMany * shape.d_model, 1);
  answers->resize(kRows * shape.d_model);
  GF_CUDA_RETURN_IF_ERROR(memory.Allocate(shape.w13().weight_bytes(), &w13));
  GF_CUDA_RETURN_IF_ERROR(memory.Allocate(shape.w2().weight_bytes(), &w2));
  GF_CUDA_RETURN_IF_ERROR(memory.Allocate(rows.size() * sizeof(float), &x));
  GF_CUDA_RETURN_IF_ERROR(memory.Allocate(answers->size() * sizeof(float), &y));
  GF_CUDA_RETURN_IF_ERROR(MakeWeights(shape.w13(), 0, 2, w13, &memory));
  GF_CUDA_RETURN_IF_ERROR(MakeWeights(shape.w13(), 1, 3, w13, &memory));
  GF_CUDA_RETURN_IF_ERROR(MakeWeights(shape.w2(), 0, 4, w2, &memory));
  GF_CUDA_RETURN_IF_ERROR(cudaMemcpy(x, rows.data(), rows.size() * sizeof(float), cudaMemcpyHostToDevice));

  DeviceExpert expert;
  expert.w13 = w13;
  expert.w2 = w2;
  std::vector<int32_t> numbers(kRows);
  std::iota(numbers.begin(), numbers.end(), 0);
  ExpertMlp mlp(shape);
  // Few rows and many: each way through the kernels.
  for (const ExpertVisits& visit : {ExpertVisits{&expert, numbers.data(), numbers.data() + kMany, kFew},
                                    ExpertVisits{&expert, numbers.data(), numbers.data(), kMany}}) {
    GF_CUDA_RETURN_IF_ERROR(mlp.Run(&visit, 1, reinterpret_cast<const float*>(x),
                                    reinterpret_cast<float*>(y), nullptr));
  }
  return cudaMemcpy(answers->data(), y, answers->size() * sizeof(float), cudaMemcpyDeviceToHost);
}

uint64_t Hash(const std::vector<float>& answers) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(answers.data());
  for (size_t i = 0; i < answers.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

}  // namespace

cudaError_t ExpertNumericsClass(WeightFormat format, uint64_t* hash) {
  std::vector<float> answers;
  GF_CUDA_RETURN_IF_ERROR(ExpertSelfTest(format, &answers));
  *hash = Hash(answers);
  return cudaSuccess;
}

cudaError_t AttentionNumericsClass(uint64_t* hash) {
  std::vector<float> answers;
  GF_CUDA_RETURN_IF_ERROR(AttentionSelfTest(&answers));
  *hash = Hash(answers);
  return cudaSuccess;
}

}  // namespace gatefold::cuda
