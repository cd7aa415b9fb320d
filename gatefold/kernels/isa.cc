#include "gatefold/kernels/isa.h"

#include <cpuid.h>
#include <pmmintrin.h>
#include <xmmintrin.h>

#include <atomic>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/kernels/attention.h"
#include "gatefold/kernels/expert_mlp.h"
#include "gatefold/kernels/gate.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"

namespace gatefold::kernels {
namespace {

// clang 14 does not know the name; that the system saves the registers, the question for AVX2 says.
bool HasF16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && HasAvx2();
}

const KernelTable* Best() {
  if (HasAvx512()) return Avx512Kernels();
  return HasAvx2() ? Avx2Kernels() : ScalarKernels();
}

std::atomic<const KernelTable*> g_kernels{nullptr};

// FNV-1a over the bits of floats.
uint64_t Hash(const std::vector<float>& values, uint64_t hash) {
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(float); ++i) {
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  }
  return hash;
}

std::vector<float> TestValues(size_t n, uint32_t seed) {
  std::vector<float> values(n);
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-31f;
  }
  return values;
}

// What changes the bits of any operation: that subnormal numbers are taken for zero or become it,
// as a library built with -ffast-math has it for the whole process, or another rounding. 0: none of
// it. The self-test's numbers are too large to show the former.
uint32_t UnusualArithmetic() {
  return _mm_getcsr() & (_MM_FLUSH_ZERO_MASK | _MM_DENORMALS_ZERO_MASK | _MM_ROUND_MASK);
}

}  // namespace

absl::Status SelectIsa(absl::string_view name) {
  const KernelTable* chosen = nullptr;
  bool available = true;
  if (name == "auto") {
    chosen = Best();
  } else if (name == "scalar") {
    chosen = ScalarKernels();
  } else if (name == "avx2") {
    chosen = Avx2Kernels();
    available = HasAvx2();
  } else if (name == "avx512") {
    chosen = Avx512Kernels();
    available = HasAvx512();
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("isa is \"", name, "\", must be auto, scalar, avx2 or avx512"));
  }
  if (!available) {
    return absl::FailedPreconditionError(absl::StrCat("this machine has no ", name));
  }
  g_kernels = chosen;
  return absl::OkStatus();
}

const KernelTable& Kernels() {
  const KernelTable* table = g_kernels.load(std::memory_order_relaxed);
  if (table == nullptr) {
    table = Best();
    g_kernels = table;
  }
  return *table;
}

uint64_t NumericsClass(WeightKind kind) {
  constexpr int kRows = 7, kIn = 71, kOut = 45, kPositions = 37;
  uint64_t hash = 0xcbf29ce484222325u;
  const std::vector<float> x = TestValues(kRows * kIn, 1);
  const std::vector<float> weights = TestValues(kOut * kIn, 2);
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    // Any 16-bit pattern below infinity is a fair weight.
    std::vector<uint16_t> halves;
    for (float weight : weights) halves.push_back(FloatToBF16(weight) & 0xbfff);
    const void* data = dtype == DType::kF32 ? static_cast<const void*>(weights.data())
                                            : static_cast<const void*>(halves.data());
    const PackedMatrix w1({dtype, kOut, kIn, kIn, data}, nullptr, kind);
    const PackedMatrix w2({dtype, kIn, kOut, kOut, data}, nullptr, kind);
    std::vector<float> y(kRows * kOut), z(kRows * kIn);
    MatMul(w1, x.data(), y.data(), kRows, nullptr);
    Kernels().silu_mul(y.data(), y.data(), y.data(), y.size());
    MatMul(w2, y.data(), z.data(), kRows, nullptr);
    RmsNorm(z.data(), x.data(), 1e-5f, z.data(), kRows, kIn);
    hash = Hash(z, Hash(y, hash));
  }
  KvLayout layout{.n_kv_heads = 1, .head_dim = 18};
  std::vector<float> keys(3 * layout.BlockFloats()), values(keys.size());
  const std::vector<float> kv = TestValues(kPositions * 18, 3);
  const std::vector<int32_t> table = {2, 0, 1};
  for (int p = 0; p < kPositions; ++p) {
    AppendKv(layout, &kv[p * 18], &kv[p * 18], p, table.data(), keys.data(), values.data());
  }
  std::vector<float> out(2 * 18);
  std::vector<AttentionRow> rows(1);
  rows[0] = {x.data(), out.data(), kPositions - 1, table.data()};
  Attention(layout, 2, 30, 0.25f, keys.data(), values.data(), rows, nullptr);
  hash = Hash(out, hash);
  std::vector<float> gate = TestValues(16, 4);
  std::vector<int32_t> ids(4);
  std::vector<float> gate_weights(4);
  GateTopK(gate.data(), 2, 8, 2, ids.data(), gate_weights.data());
  hash = Hash(gate_weights, hash);
  const uint32_t unusual = UnusualArithmetic();
  return unusual == 0 ? hash : (hash ^ unusual) * 0x100000001b3u;
}

}  // namespace gatefold::kernels
