#include "router-service/gateway/large_blocks.h"

#include <cstdlib>
#include <new>

namespace gatefold {

std::atomic<int> n_large_blocks = 0;

}  // namespace gatefold

// The nothrow forms too, or these would free what a sanitizer's have given out.
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  if (bytes >= gatefold::kLargeBlockBytes) ++gatefold::n_large_blocks;
  return std::malloc(bytes);
}
void* operator new(std::size_t bytes) {
  if (void* block = operator new(bytes, std::nothrow)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t /*bytes*/) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t& /*tag*/) noexcept { std::free(block); }
