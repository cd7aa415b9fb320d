#include "gatefold/tensor/buffer.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "gatefold/tensor/huge_pages.h"

namespace gatefold {
namespace {
constexpr size_t kAlignment = 64;
constexpr size_t kLarge = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
}  // namespace

Buffer::Buffer(size_t bytes) : size_bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes >= kLarge) {
    data_ = HugePages::Global().Allocate(bytes);
    return;
  }
  data_ = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_, 0, bytes);
}

Buffer::~Buffer() {
  if (size_bytes_ >= kLarge) {
    HugePages::Global().Free(data_, size_bytes_);
  } else {
    std::free(data_);
  }
}

}  // namespace gatefold
