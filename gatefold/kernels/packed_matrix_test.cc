#include "gatefold/kernels/packed_matrix.h"

#include <cstring>
#include <random>
#include <vector>

#include "gatefold/kernels/to_floats.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

TEST(PackedMatrixTest, GivesBackEveryBit) {
  std::mt19937 random(1);
  for (const DType dtype : kDTypes) {
    for (const auto& [n_out, n_in] :
         {std::pair<int64_t, int64_t>{1, 1}, {5, 31}, {8, 64}, {13, 70}}) {
      std::vector<char> bits(n_out * n_in * DTypeBytes(dtype));
      for (char& byte : bits) byte = static_cast<char>(random());
      const MatrixView view = {dtype, n_out, n_in, n_in, bits.data()};
      const PackedMatrix packed(view, nullptr);
      PackedMatrix by_turns(dtype, 2 * packed.n_panels() * PackedMatrix::kPanel, n_in);
      by_turns.FillEveryOtherPanel(1, view, nullptr);
      const size_t row_bytes = n_in * DTypeBytes(dtype);
      std::vector<char> row(row_bytes);
      for (int64_t out = 0; out < n_out; ++out) {
        packed.CopyRow(out, row.data());
        EXPECT_EQ(std::memcmp(row.data(), &bits[out * row_bytes], row_bytes), 0);
        by_turns.CopyRow(PackedMatrix::RowInEveryOtherPanel(1, out), row.data());
        EXPECT_EQ(std::memcmp(row.data(), &bits[out * row_bytes], row_bytes), 0);
      }
    }
  }
}

TEST(WriteBackTest, GivesBackEveryBitOfEveryHalf) {
  std::vector<uint16_t> halves(65536), back(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(65536);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    ReadFloats(dtype, halves.data(), 65536, floats.data());
    WriteBack(dtype, floats.data(), 65536, back.data());
    EXPECT_EQ(back, halves) << DTypeName(dtype);
  }
}

}  // namespace
}  // namespace gatefold
