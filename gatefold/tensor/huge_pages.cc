#include "gatefold/tensor/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <new>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Address space only: pages take memory when they are touched.
constexpr size_t kMappingBytes = size_t{256} << 20;

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Aligned to a huge page: one more is mapped, and the ends are given back.
char* Map(size_t bytes) {
  char* base = static_cast<char*>(mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (base == MAP_FAILED) throw std::bad_alloc();
  const size_t address = reinterpret_cast<size_t>(base);
  const size_t head = RoundUp(address, kHugePage) - address;
  if (head > 0) munmap(base, head);
  munmap(base + head + bytes, kHugePage - head);
  madvise(base + head, bytes, MADV_HUGEPAGE);
  return base + head;
}

}  // namespace

HugePages& HugePages::Global() {
  static HugePages* const pages = new HugePages;
  return *pages;
}

HugePages::~HugePages() {
  for (const auto& [start, mapping] : mappings_) munmap(start, mapping.size);
}

void* HugePages::Allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  bytes = RoundUp(std::max<size_t>(bytes, 1), kUnit);
  absl::MutexLock lock(&mu_);
  if (void* data = TakeFromGap(bytes)) return data;
  AddMapping(bytes);
  return TakeFromGap(bytes);
}

void* HugePages::TakeFromGap(size_t bytes) {
  for (auto& [start, mapping] : mappings_) {
    for (auto gap = mapping.gaps.begin(); gap != mapping.gaps.end(); ++gap) {
      if (gap->second < bytes) continue;
      char* data = gap->first;
      const size_t rest = gap->second - bytes;
      mapping.gaps.erase(gap);
      if (rest > 0) mapping.gaps[data + bytes] = rest;
      return data;
    }
  }
  return nullptr;
}

void HugePages::AddMapping(size_t bytes) {
  const size_t size = RoundUp(std::max(bytes, kMappingBytes), kHugePage);
  char* start = Map(size);
  Mapping& mapping = mappings_[start];
  mapping.size = size;
  mapping.gaps[start] = size;
}

void HugePages::Free(void* data, size_t bytes) {
  char* start = static_cast<char*>(data);
  size_t size = RoundUp(std::max<size_t>(bytes, 1), kUnit);
  // Before anyone else can have it: what is handed out again must be zero.
  GF_CHECK(madvise(start, size, MADV_DONTNEED) == 0);
  absl::MutexLock lock(&mu_);
  auto mapping = std::prev(mappings_.upper_bound(start));
  Gaps& gaps = mapping->second.gaps;
  auto next = gaps.lower_bound(start);
  if (next != gaps.end() && start + size == next->first) {
    size += next->second;
    next = gaps.erase(next);
  }
  if (next != gaps.begin() && std::prev(next)->first + std::prev(next)->second == start) {
    start = std::prev(next)->first;
    size += std::prev(next)->second;
  }
  gaps[start] = size;
  if (size == mapping->second.size) {
    munmap(start, size);
    mappings_.erase(mapping);
  }
}

size_t HugePages::n_mappings() const {
  absl::MutexLock lock(&mu_);
  return mappings_.size();
}

}  // namespace gatefold
