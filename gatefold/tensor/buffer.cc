#include "gatefold/tensor/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace gatefold {
namespace {
constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
}  // namespace

Buffer::Buffer(size_t bytes) : size_bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes < kHugePage) {
    data_ = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, bytes);
    return;
  }
  // Map one huge page more than needed and give the ends back, so that the start is aligned.
  const size_t wanted = RoundUp(bytes, kHugePage);
  char* base = static_cast<char*>(mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (base == MAP_FAILED) throw std::bad_alloc();
  const size_t address = reinterpret_cast<size_t>(base);
  const size_t head = RoundUp(address, kHugePage) - address;
  if (head > 0) munmap(base, head);
  munmap(base + head + wanted, kHugePage - head);
  data_ = base + head;
  mapped_bytes_ = wanted;
  madvise(data_, wanted, MADV_HUGEPAGE);
}

Buffer::~Buffer() {
  if (mapped_bytes_ > 0) {
    munmap(data_, mapped_bytes_);
  } else {
    std::free(data_);
  }
}

}  // namespace gatefold
