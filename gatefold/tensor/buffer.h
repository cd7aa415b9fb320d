#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace gatefold {

// Owned, zeroed, uninterpreted memory on the heap, aligned to 64 bytes (a cache line, an AVX-512
// vector). From 2 MiB on it lies in huge pages (huge_pages.h): streaming weights through 4 KiB
// pages costs decode speed. Movable, not copyable. An empty Buffer has data() null.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer();

  void* data() { return data_; }
  const void* data() const { return data_; }
  template <typename T>
  T* as() {
    return static_cast<T*>(data_);
  }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
  }
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace gatefold
