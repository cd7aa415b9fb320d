#pragma once

// A CUDA device in software, to run the kernels' own source on a machine without one: right
// numbers, the row law, and what a race would do to them.
//
// A kernel's threads are fibers of one thread of the host. They take turns, warps and the lanes of
// a warp in an order drawn anew each time, each from where it waits to where it waits next. What is
// asynchronous on a device (copies to shared memory, the warpgroup's matrix products) happens at a
// moment drawn at random between its start and the wait for it; till then its result is poisoned
// with NaN. So whoever reads too early, writes too soon or forgets to wait gets wrong bits, and
// tests that compare bits fail. The host is ahead of the device: kernels, copies and events happen
// at a moment drawn at random before it waits for them, and a copy to pinned memory is there once
// it waits for something, and not before. Device memory lies between pages that nobody may touch,
// and what is beside it there, less than a page and less than 16 bytes behind, is looked at when it
// is freed. Where no thread can go on, the process ends and says which waits for what. Kernels run
// one after another, and streams never overlap; but of a kernel that may overlap with the one
// before, one cluster goes as far as it gets without that one's end before that one runs, and up to
// two before it. It sees what was there earlier. What such a kernel keeps in static shared memory
// till its wait is lost: that memory is the same for all.
//
// Not shown: a race between threads that do not wait in between, as of an increment that is not
// atomic; a __syncwarp left out beside an instruction that the whole warp takes part in, which is a
// meeting here; fences of any kind; a kernel that reads memory of the host (the other way round the
// process ends, see DeviceAccess); static shared memory that is read before it is written; bank
// conflicts, anything of speed. Matrix products add up in another order than tensor cores do, the
// same for all of them.
//
// GATEFOLD_EMULATOR_SEED (a number) draws other orders. GATEFOLD_EMULATOR_LOST_FILE: once there is
// a file of that name, the next kernel goes astray. GATEFOLD_EMULATOR_MEMORY: bytes of the device,
// some of which must be free for a kernel that was not launched before.
// Threads: launches wait for each other.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace gatefold::cuda::emulator {

inline constexpr int kWarpThreads = 32;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

struct GridShape {
  int64_t n_blocks = 0;
  int n_threads = 0;
  int shared_bytes = 0;
  int cluster = 1;
  bool overlaps = false;  // each block must say AwaitKernelBefore
};

// Runs `kernel` for every thread, in the order of the launches, some time before Finish() returns.
// Ends the process if threads wait for each other for ever. Nothing once the device is lost.
void Run(const GridShape& grid, const void* stream, std::function<void()> kernel);
void Finish();
// Shared memory that launches of this kernel may ask for; 0 before it is set.
std::atomic<int>& AllowedSharedBytes(const void* kernel);
// Brings a kernel's code to the device, when it is first asked for; false if there is no memory for
// it.
bool Load(const void* kernel);
// Whether a kernel went astray, and with it the device: the runtime's calls fail from then on.
bool IsLost();

// What follows is for threads of the running kernel.
struct Place {
  Index3 thread, block, block_size, grid_size;
};
extern const Place* place;  // of the thread that runs
inline const Index3& ThreadIndex() { return place->thread; }
inline const Index3& BlockIndex() { return place->block; }
inline const Index3& BlockSize() { return place->block_size; }
inline const Index3& GridSize() { return place->grid_size; }
unsigned RankInCluster();

char* SharedMemory();                             // of the block
uint32_t SharedOffset(const void* pointer);       // ends the process if it lies elsewhere
char* SharedPointer(uint32_t offset, int bytes);  // likewise

// Waits until (*word & mask) != value. what: for the message where nobody can go on.
void AwaitChange(const uint32_t* word, uint32_t mask, uint32_t value, const char* what);

// All threads of the warp meet, each with something; the last to come calls `all` with the things
// in order of threads, then everybody goes on. Ends the process if they meet for different things.
void MeetWarp(const char* what, void* mine, const std::function<void(void* const* all)>& all);
// `id` 0: all threads of the block that have not ended. Returns how many said `is`.
int MeetBlock(int id, int n_threads, bool is);
void MeetCluster();
// Until the kernel before this one has ended.
void AwaitKernelBefore();

// Barriers in shared memory (mbarrier): eight bytes each.
void BarrierInit(uint64_t* barrier, uint32_t arrivals);
void BarrierArrive(uint64_t* barrier);
void BarrierExpect(uint64_t* barrier, uint32_t bytes);  // and arrives
void BarrierWait(uint64_t* barrier, uint32_t parity);
// The same place of block `rank` of the cluster.
void* OfBlock(void* pointer, uint32_t rank);
// A copy to the same place of those blocks, counted by the same barrier of each.
void BulkCopy(void* to, const void* from, uint32_t bytes, uint64_t* barrier, uint32_t blocks);

// This thread's copies (cp.async).
void CopyAsync16(uint32_t to, const void* from, bool read);
void CommitCopies();
void AwaitCopies(int n_pending_groups);

// A warpgroup's product (wgmma), sums[64, n] = or += a[64, 16] b[16, n], of which each of its four
// warps has 16 rows: they do not wait for each other.
struct Product {
  int n = 0;
  float* sums = nullptr;        // this thread's n / 2
  const uint32_t* a = nullptr;  // this thread's four registers, or null:
  uint64_t a_descriptor = 0;
  uint64_t b_descriptor = 0;
  bool b_is_transposed = false;  // b lies [16, n]
  bool clears = false;           // what was in the sums does not count
};
void StartProduct(const Product& product);
void CommitProducts();
void AwaitProducts(int n_pending_groups);

// d[16, 8] += a[16, 16] b[16, 8], operands as mma.sync has them.
void MultiplyAdd(float* d, const uint32_t* a, uint32_t b0, uint32_t b1);
// n matrices of 8 x 8 16-bit elements (ldmatrix).
void LoadMatrices(uint32_t address, uint32_t* m, int n, bool transposed);
uint32_t Transposed(uint32_t matrix);

// Ends the process with a message that names the kernel's thread.
[[noreturn]] void Fail(const std::string& message);

}  // namespace gatefold::cuda::emulator
