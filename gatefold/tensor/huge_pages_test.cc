#include "gatefold/tensor/huge_pages.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(HugePagesTest, BuffersLieSideBySideInOneMapping) {
  HugePages pages;
  char* first = static_cast<char*>(pages.Allocate(3 * kMiB + 1));
  char* second = static_cast<char*>(pages.Allocate(3 * kMiB));
  EXPECT_EQ(second - first, 3 * kMiB + HugePages::kUnit);
  EXPECT_EQ(pages.n_mappings(), 1);
  pages.Free(first, 3 * kMiB + 1);
  pages.Free(second, 3 * kMiB);
  EXPECT_EQ(pages.n_mappings(), 0);
}

TEST(HugePagesTest, WhatIsHandedOutAgainIsZero) {
  HugePages pages;
  void* kept = pages.Allocate(kMiB);
  char* data = static_cast<char*>(pages.Allocate(5000));
  std::memset(data, 1, 5000);
  pages.Free(data, 5000);
  char* again = static_cast<char*>(pages.Allocate(5000));
  EXPECT_EQ(again, data);
  EXPECT_TRUE(std::all_of(again, again + 5000, [](char c) { return c == 0; }));
  pages.Free(again, 5000);
  pages.Free(kept, kMiB);
}

TEST(HugePagesTest, LargerThanAMappingGetsOneOfItsOwn) {
  HugePages pages;
  void* small = pages.Allocate(kMiB);
  char* large = static_cast<char*>(pages.Allocate(600 * kMiB));
  large[600 * kMiB - 1] = 1;
  EXPECT_EQ(pages.n_mappings(), 2);
  pages.Free(large, 600 * kMiB);
  EXPECT_EQ(pages.n_mappings(), 1);
  pages.Free(small, kMiB);
}

TEST(HugePagesTest, RefusesWhatNoMachineHas) {
  HugePages pages;
  EXPECT_THROW(pages.Allocate(SIZE_MAX), std::bad_alloc);
  EXPECT_THROW(pages.Allocate(SIZE_MAX / 4), std::bad_alloc);
  EXPECT_EQ(pages.n_mappings(), 0);
}

TEST(HugePagesTest, BuffersNeverOverlapAndGapsGrowTogether) {
  struct Buffer {
    char* data;
    size_t bytes;
    char mark;
  };
  HugePages pages;
  std::mt19937 random(3);
  std::vector<Buffer> buffers;
  for (int i = 0; i < 2000; ++i) {
    if (buffers.size() < 40 && random() % 3 != 0) {
      const size_t bytes = 1 + random() % (4 * kMiB);
      char* data = static_cast<char*>(pages.Allocate(bytes));
      ASSERT_EQ(data[0], 0);
      ASSERT_EQ(data[bytes - 1], 0);
      data[0] = data[bytes - 1] = static_cast<char>(1 + i % 100);
      buffers.push_back({data, bytes, data[0]});
    } else if (!buffers.empty()) {
      std::swap(buffers[random() % buffers.size()], buffers.back());
      const Buffer buffer = buffers.back();
      buffers.pop_back();
      ASSERT_EQ(buffer.data[0], buffer.mark);
      ASSERT_EQ(buffer.data[buffer.bytes - 1], buffer.mark);
      pages.Free(buffer.data, buffer.bytes);
    }
  }
  for (const Buffer& buffer : buffers) pages.Free(buffer.data, buffer.bytes);
  EXPECT_EQ(pages.n_mappings(), 0);
}

}  // namespace
}  // namespace gatefold
