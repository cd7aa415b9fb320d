#include "gatefold/tensor/buffer.h"

#include <utility>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

TEST(BufferTest, IsAlignedAndZeroed) {
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{2} << 20, (size_t{5} << 20) + 3}) {
    Buffer buffer(bytes);
    EXPECT_EQ(reinterpret_cast<size_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.size_bytes(), bytes);
    EXPECT_EQ(buffer.as<char>()[0], 0);
    EXPECT_EQ(buffer.as<char>()[bytes - 1], 0);
    buffer.as<char>()[bytes - 1] = 1;
  }
}

TEST(BufferTest, MovesItsMemory) {
  Buffer a(16);
  a.as<int>()[0] = 7;
  Buffer b = std::move(a);
  EXPECT_EQ(b.as<int>()[0], 7);
  EXPECT_EQ(a.data(), nullptr);
  a = std::move(b);
  EXPECT_EQ(a.as<int>()[0], 7);
}

}  // namespace
}  // namespace gatefold
