#include "tests/gpu/emulator/matrices.h"

#include <bit>
#include <cstring>

namespace gatefold::cuda::emulator {
namespace {

float FromBF16(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

// Shared memory as a matrix descriptor sees it.
class Operand {
 public:
  Operand(const Block& block, uint64_t descriptor)
      : block_(block),
        start_(static_cast<uint32_t>(descriptor & 0x3fff) << 4),
        leading_(static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4),
        stride_(static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62 != 1) Fail("a matrix whose rows are not of 128 bytes, swizzled");
  }

  // Element `at` along the sum of row or column `row`, where the sum lies along the 128 bytes.
  float Along(int row, int at) const { return Read(row / 8 * stride_ + row % 8 * 128 + at * 2); }
  // Where the other side does.
  float Across(int at, int column) const {
    return Read(column / 64 * leading_ + at / 8 * stride_ + at % 8 * 128 + column % 64 * 2);
  }

 private:
  float Read(uint32_t offset) const {
    uint32_t address = start_ + offset;
    address ^= (address >> 7 & 7) << 4;
    // As for a thread of the block, which is not running now.
    const uint32_t in_block = address - 1024;
    if (address < 1024 || in_block + 2 > static_cast<uint32_t>(block_.shared_bytes)) {
      Fail("a product reads outside of shared memory");
    }
    uint16_t bits;
    std::memcpy(&bits, block_.shared + in_block, 2);
    return FromBF16(bits);
  }

  const Block& block_;
  const uint32_t start_, leading_, stride_;
};

}  // namespace

// The same bits by any instructions: products of bfloat16 are exact in float32, and nothing is
// fused.
__attribute__((target_clones("avx2", "default"))) void MultiplyAddMatrices(const float* a,
                                                                           const float* b, int n,
                                                                           float* sums) {
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      const float x = a[i * 16 + k];
      for (int j = 0; j < n; ++j) sums[i * n + j] += x * b[k * n + j];
    }
  }
}

void SpreadLeft(const uint32_t* registers, int lane, float* a) {
  for (int r = 0; r < 4; ++r) {
    const int row = lane / 4 + r % 2 * 8, at = lane % 4 * 2 + r / 2 * 8;
    a[row * 16 + at] = FromBF16(registers[r] & 0xffff);
    a[row * 16 + at + 1] = FromBF16(registers[r] >> 16);
  }
}

namespace {

// Where a lane's sum i lies in [16, n].
int PlaceOfSum(int lane, int i, int n) {
  const int row = lane / 4 + i % 4 / 2 * 8;
  return row * n + i / 4 * 8 + lane % 4 * 2 + i % 2;
}

}  // namespace

void GatherSums(const float* of_thread, int lane, int n, float* sums) {
  for (int i = 0; i < n / 2; ++i) sums[PlaceOfSum(lane, i, n)] = of_thread[i];
}

void SpreadSums(const float* sums, int lane, int n, float* of_thread) {
  for (int i = 0; i < n / 2; ++i) of_thread[i] = sums[PlaceOfSum(lane, i, n)];
}

void ReadLeft(const Block& block, uint64_t descriptor, int first_row, float* a) {
  const Operand operand(block, descriptor);
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) a[row * 16 + k] = operand.Along(first_row + row, k);
  }
}

void ReadRight(const Block& block, uint64_t descriptor, int n, bool transposed, float* b) {
  const Operand operand(block, descriptor);
  for (int k = 0; k < 16; ++k) {
    for (int j = 0; j < n; ++j)
      b[k * n + j] = transposed ? operand.Across(k, j) : operand.Along(j, k);
  }
}

void MultiplyAdd(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  struct Lane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } mine = {d, a, {b0, b1}};
  MeetWarp("mma.sync", &mine, [](void* const* all) {
    float left[16 * 16], right[16 * 8], sums[16 * 8];
    for (int t = 0; t < kWarpThreads; ++t) {
      const Lane& lane = *static_cast<Lane*>(all[t]);
      SpreadLeft(lane.a, t, left);
      for (int r = 0; r < 2; ++r) {
        const int k = t % 4 * 2 + r * 8, column = t / 4;
        right[k * 8 + column] = FromBF16(lane.b[r] & 0xffff);
        right[(k + 1) * 8 + column] = FromBF16(lane.b[r] >> 16);
      }
      for (int i = 0; i < 4; ++i) sums[PlaceOfSum(t, i, 8)] = lane.d[i];
    }
    MultiplyAddMatrices(left, right, 8, sums);
    for (int t = 0; t < kWarpThreads; ++t) {
      for (int i = 0; i < 4; ++i) static_cast<Lane*>(all[t])->d[i] = sums[PlaceOfSum(t, i, 8)];
    }
  });
}

void LoadMatrices(uint32_t address, uint32_t* m, int n, bool transposed) {
  struct Lane {
    const char* row;
    uint32_t* m;
    int n;
  } mine = {nullptr, m, n};
  const int lane = static_cast<int>(ThreadIndex().x) % kWarpThreads;
  if (lane < 8 * n) {  // the addresses of others do not count
    if (address % 16 != 0) Fail("an unaligned row of a matrix");
    mine.row = SharedPointer(address, 16);
  }
  MeetWarp(transposed ? "ldmatrix.trans" : "ldmatrix", &mine, [transposed](void* const* all) {
    const auto element = [&](int matrix, int row, int column) {
      uint16_t bits;
      std::memcpy(&bits, static_cast<Lane*>(all[8 * matrix + row])->row + 2 * column, 2);
      return static_cast<uint32_t>(bits);
    };
    for (int t = 0; t < kWarpThreads; ++t) {
      const Lane& lane = *static_cast<Lane*>(all[t]);
      for (int i = 0; i < lane.n; ++i) {
        const int row = t / 4, column = t % 4 * 2;
        lane.m[i] = transposed ? element(i, column, row) | element(i, column + 1, row) << 16
                               : element(i, row, column) | element(i, row, column + 1) << 16;
      }
    }
  });
}

uint32_t Transposed(uint32_t matrix) {
  uint32_t mine = matrix;
  MeetWarp("movmatrix", &mine, [](void* const* all) {
    uint16_t elements[8][8];
    for (int t = 0; t < kWarpThreads; ++t) {
      std::memcpy(&elements[t / 4][t % 4 * 2], all[t], 4);
    }
    for (int t = 0; t < kWarpThreads; ++t) {
      *static_cast<uint32_t*>(all[t]) =
          elements[t % 4 * 2][t / 4] | static_cast<uint32_t>(elements[t % 4 * 2 + 1][t / 4]) << 16;
    }
  });
  return mine;
}

}  // namespace gatefold::cuda::emulator
