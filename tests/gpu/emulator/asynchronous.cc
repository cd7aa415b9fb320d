// What an emulated device does by itself: barriers in shared memory, copies, a warpgroup's
// products.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/gpu/emulator/device.h"
#include "tests/gpu/emulator/matrices.h"

namespace gatefold::cuda::emulator {
namespace {

// The eight bytes of an mbarrier.
struct Barrier {
  uint32_t phase : 1, n_pending : 15, n_expected : 15;
  int32_t n_bytes;  // that are yet to come: below 0 while copies are ahead of who expects them

  void EndPhaseIfComplete() {
    if (n_pending > 0 || n_bytes != 0) return;
    n_pending = n_expected;
    phase ^= 1;
  }
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));

Barrier& Of(uint64_t* barrier) { return *reinterpret_cast<Barrier*>(barrier); }

void Arrive(Barrier& barrier) {
  if (barrier.n_pending == 0) Fail("more threads arrive at a barrier than it was made for");
  --barrier.n_pending;
  barrier.EndPhaseIfComplete();
}

}  // namespace

void BarrierInit(uint64_t* barrier, uint32_t arrivals) {
  SharedOffset(barrier);
  if (arrivals < 1 || arrivals >= 1 << 15) Fail("a barrier of so many arrivals");
  Of(barrier) = {.phase = 0, .n_pending = arrivals, .n_expected = arrivals, .n_bytes = 0};
}

void BarrierArrive(uint64_t* barrier) { Arrive(Of(barrier)); }

void BarrierExpect(uint64_t* barrier, uint32_t bytes) {
  Of(barrier).n_bytes += static_cast<int>(bytes);
  Arrive(Of(barrier));
}

void BarrierWait(uint64_t* barrier, uint32_t parity) {
  AwaitChange(reinterpret_cast<const uint32_t*>(barrier), 1, parity, "an mbarrier");  // its phase
}

namespace {

// A block that has ended has given its shared memory to another.
Block& LiveBlock(uint32_t rank) {
  Device& device = Device::Get();
  if (rank >= device.cluster().size()) Fail("a block that the cluster does not have");
  if (device.cluster()[rank].n_live == 0) Fail("the cluster's other block has ended");
  return device.cluster()[rank];
}

}  // namespace

void* OfBlock(void* pointer, uint32_t rank) {
  return LiveBlock(rank).shared + (static_cast<char*>(pointer) - SharedMemory());
}

void FinishBulkCopy(const StartedBulkCopy& copy) {
  if (copy.block->n_live == 0) Fail("a block ended before a copy into its shared memory did");
  std::memcpy(copy.to, copy.from, copy.bytes);
  Of(copy.barrier).n_bytes -= static_cast<int>(copy.bytes);
  Of(copy.barrier).EndPhaseIfComplete();
}

void BulkCopy(void* to, const void* from, uint32_t bytes, uint64_t* barrier, uint32_t blocks) {
  if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(to) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    Fail("a bulk copy that is not of whole 16 bytes");
  }
  char* const here = SharedPointer(SharedOffset(to), static_cast<int>(bytes));
  Device& device = Device::Get();
  for (uint32_t rank = 0; rank < 32; ++rank) {  // each at its own time
    if ((blocks >> rank & 1) == 0) continue;
    const Block& block = LiveBlock(rank);
    const StartedBulkCopy copy = {&block, block.shared + (here - SharedMemory()),
                                  static_cast<uint64_t*>(OfBlock(barrier, rank)),
                                  static_cast<const char*>(from), bytes};
    std::memset(copy.to, 0xFF, bytes);
    if (device.IsEager()) {
      FinishBulkCopy(copy);
    } else {
      device.Start(copy);
    }
  }
}

void AwaitKernelBefore() {
  Block& block = *Device::Get().current().block;
  block.has_awaited = true;
  AwaitChange(&block.before_ended, ~0u, 0, "the end of the kernel before");
}

void ThreadCopies::Start(char* to, const char* from) {
  std::memset(to, 0xFF, 16);
  started_.push_back({to, from, n_commits_});
}

void ThreadCopies::Finish(const Started& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

void ThreadCopies::FinishAny(std::mt19937_64& random) {
  const size_t i = random() % started_.size();
  Finish(started_[i]);
  started_.erase(started_.begin() + i);
}

void ThreadCopies::Await(int n_pending_groups) {
  const auto is_due = [&](const Started& copy) {
    return copy.commit < n_commits_ - n_pending_groups;
  };
  for (const Started& copy : started_) {
    if (is_due(copy)) Finish(copy);
  }
  started_.erase(std::remove_if(started_.begin(), started_.end(), is_due), started_.end());
}

void ThreadCopies::Reset() {
  started_.clear();
  n_commits_ = 0;
}

void CopyAsync16(uint32_t to, const void* from, bool read) {
  if (to % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) Fail("an unaligned copy");
  Device::Get().current().copies.Start(SharedPointer(to, 16),
                                       read ? static_cast<const char*>(from) : nullptr);
}
void CommitCopies() { Device::Get().current().copies.Commit(); }
void AwaitCopies(int n_pending_groups) { Device::Get().current().copies.Await(n_pending_groups); }

void WarpProducts::Start(const std::array<Product, kWarpThreads>& of_threads, const Block* block,
                         int warp) {
  const Product& first = of_threads[0];
  Sums& sums = sums_[first.sums];
  if (sums.n_started == 0) {
    sums.values.assign(16 * first.n, 0.0f);
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const Product& product = of_threads[lane];
      if (!first.clears) GatherSums(product.sums, lane, first.n, sums.values.data());
      std::fill_n(product.sums, first.n / 2, std::numeric_limits<float>::quiet_NaN());
    }
  } else if (first.clears) {
    Fail("a product clears sums that others are still adding to");
  }
  ++sums.n_started;
  started_.push_back({of_threads, block, warp, n_commits_});
}

void WarpProducts::FinishOne() {
  const Started product = std::move(started_.front());
  started_.pop_front();
  const Product& first = product.of_threads[0];
  Sums& sums = sums_.at(first.sums);
  float a[16 * 16], b[16 * kMostColumns];
  if (first.a == nullptr) {
    ReadLeft(*product.block, first.a_descriptor, 16 * product.warp, a);
  } else {
    for (int lane = 0; lane < kWarpThreads; ++lane) SpreadLeft(product.of_threads[lane].a, lane, a);
  }
  ReadRight(*product.block, first.b_descriptor, first.n, first.b_is_transposed, b);
  MultiplyAddMatrices(a, b, first.n, sums.values.data());
  if (--sums.n_started > 0) return;
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    float* const of_thread = product.of_threads[lane].sums;
    if (!std::all_of(of_thread, of_thread + first.n / 2, [](float x) { return std::isnan(x); })) {
      Fail("sums were written while a product adds to them");
    }
    SpreadSums(sums.values.data(), lane, first.n, of_thread);
  }
  sums_.erase(first.sums);
}

void WarpProducts::Await(int n_pending_groups) {
  while (!started_.empty() && started_.front().commit < n_commits_ - n_pending_groups) FinishOne();
}

namespace {

WarpProducts& ProductsOfWarp() {
  const Thread& thread = Device::Get().current();
  return thread.block->products[thread.index / kWarpThreads];
}

}  // namespace

void StartProduct(const Product& product) {
  Product mine = product;
  const Thread& thread = Device::Get().current();
  MeetWarp("wgmma", &mine, [&](void* const* all) {
    std::array<Product, kWarpThreads> of_threads;
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      of_threads[lane] = *static_cast<Product*>(all[lane]);
      if (of_threads[lane].n != mine.n || of_threads[lane].b_descriptor != mine.b_descriptor ||
          of_threads[lane].a_descriptor != mine.a_descriptor ||
          of_threads[lane].clears != mine.clears) {
        Fail("a warp's threads start different products");
      }
    }
    WarpProducts& products = ProductsOfWarp();
    products.Start(of_threads, thread.block, thread.index / kWarpThreads % 4);
    while (!products.IsIdle() && Device::Get().IsEager()) products.FinishOne();
  });
}

void CommitProducts() {
  MeetWarp("wgmma.commit_group", nullptr, [](void* const*) { ProductsOfWarp().Commit(); });
}

void AwaitProducts(int n_pending_groups) {
  MeetWarp("wgmma.wait_group", nullptr,
           [&](void* const*) { ProductsOfWarp().Await(n_pending_groups); });
}

}  // namespace gatefold::cuda::emulator
