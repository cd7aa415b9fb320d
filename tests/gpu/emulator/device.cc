#include "tests/gpu/emulator/device.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>

#include "tests/gpu/emulator/queue.h"

namespace gatefold::cuda::emulator {
namespace {

constexpr int kMostThreads = 2048;  // of a cluster
constexpr size_t kStackBytes = 128 << 10;
constexpr uint32_t kSharedBegin = 1024;  // as on Hopper: what lies before is the system's

}  // namespace

uint64_t Seed() {
  const char* const text = std::getenv("GATEFOLD_EMULATOR_SEED");
  if (text == nullptr) return 1;
  char* end = nullptr;
  const uint64_t seed = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') {
    std::fprintf(stderr, "GATEFOLD_EMULATOR_SEED is \"%s\", must be a number\n", text);
    std::exit(2);
  }
  return seed;
}

const Place* place = nullptr;
Device* const Device::the_device = new Device;

Launch::Launch() : threads(new Thread[kMostThreads]) {}

Device::Device() : random_(Seed()) {
  std::atexit([] { emulator::Finish(); });  // what nobody waited for may be wrong as well
}

bool Device::IsEager() { return Draw() < now_->pace.finishes; }

void Device::Yield() {
  Thread& thread = *current_;
  thread.back = std::move(thread.back).resume();
}

void Device::Resume(Thread& thread) {
  if (!thread.fiber) {
    thread.fiber = boost::context::fiber(std::allocator_arg,
                                         boost::context::protected_fixedsize_stack(kStackBytes),
                                         [this, &thread](boost::context::fiber&& back) {
                                           thread.back = std::move(back);
                                           for (;;) {  // a kernel each time
                                             now_->kernel();
                                             thread.has_ended = true;
                                             thread.back = std::move(thread.back).resume();
                                           }
                                           return std::move(thread.back);
                                         });
  }
  current_ = &thread;
  place = &thread.place;
  thread.word = nullptr;
  thread.fiber = std::move(thread.fiber).resume();
  current_ = nullptr;
  if (!thread.has_ended) return;
  if (!thread.copies.IsIdle()) thread.copies.Await(0);
  Block& block = *thread.block;
  --block.n_live;
  Meeting& all = block.meetings[0];  // does not wait for those that ended
  if (all.n > 0 && all.n == block.n_live) {
    all.last_saying_yes = all.n_saying_yes;
    all.n = all.n_saying_yes = 0;
    ++all.generation;
  }
}

// Lanes in an order of their own: from any of them on, in steps of any odd number.
bool Device::ResumeWarp(Block& block, int warp) {
  bool any = false;
  const unsigned drawn = static_cast<unsigned>(random_());
  const unsigned first = drawn % kWarpThreads, step = drawn / kWarpThreads | 1;
  for (unsigned i = 0; i < kWarpThreads; ++i) {
    const int thread = warp * kWarpThreads + static_cast<int>((first + i * step) % kWarpThreads);
    if (thread >= block.n_threads || !block.threads[thread].CanGoOn()) continue;
    Resume(block.threads[thread]);
    any = true;
  }
  return any;
}

bool Device::ResumeThreads(bool stall) {
  bool any = false;
  std::vector<Block>& cluster = now_->cluster;
  const size_t first_block = random_() % cluster.size();
  for (size_t b = 0; b < cluster.size(); ++b) {
    Block& block = cluster[(first_block + b) % cluster.size()];
    const int n_warps = (block.n_threads + kWarpThreads - 1) / kWarpThreads;
    const int first_warp = static_cast<int>(random_() % n_warps);
    for (int w = 0; w < n_warps; ++w) {
      const int warp = (first_warp + w) % n_warps;
      if (stall && Draw() < now_->pace.stalls) continue;
      bool goes_on = true;
      for (int turn = 0; turn < now_->pace.turns && goes_on; ++turn) {
        goes_on = ResumeWarp(block, warp);
        any |= goes_on;
      }
    }
  }
  return any;
}

bool Device::FinishSome(double chance) {
  bool any = false;
  if (chance == 0) return false;
  std::vector<StartedBulkCopy>& bulk_copies = now_->bulk_copies;
  for (size_t i = 0; i < bulk_copies.size();) {
    if (Draw() >= chance) {
      ++i;
      continue;
    }
    const StartedBulkCopy copy = bulk_copies[i];
    bulk_copies.erase(bulk_copies.begin() + i);
    FinishBulkCopy(copy);
    any = true;
  }
  for (Block& block : now_->cluster) {
    for (WarpProducts& products : block.products) {
      while (!products.IsIdle() && Draw() < chance) {
        products.FinishOne();
        any = true;
      }
    }
    for (int i = 0; i < block.n_threads; ++i) {
      ThreadCopies& copies = block.threads[i].copies;
      while (!copies.IsIdle() && Draw() < chance) {
        copies.FinishAny(random_);
        any = true;
      }
    }
  }
  return any;
}

void Device::BeginCluster() {
  Launch& launch = *now_;
  const int64_t first_block = launch.order.back();
  launch.order.pop_back();
  constexpr double kFinishes[] = {0, 0.05, 0.5, 1}, kStalls[] = {0, 0.5, 0.9};
  constexpr int kTurns[] = {1, 4, 64, 1000};
  launch.pace = {kFinishes[random_() % 4], kStalls[random_() % 3], kTurns[random_() % 4]};
  const GridShape& grid = launch.grid;
  for (size_t rank = 0; rank < launch.cluster.size(); ++rank) {
    Block& block = launch.cluster[rank];
    block = Block();
    block.index = static_cast<unsigned>(first_block + rank);
    block.rank = static_cast<unsigned>(rank);
    block.n_threads = block.n_live = grid.n_threads;
    block.shared = launch.shared[rank];
    block.shared_bytes = grid.shared_bytes;
    std::memset(block.shared, 0xFF, block.shared_bytes);
    block.warps.resize((grid.n_threads + kWarpThreads - 1) / kWarpThreads);
    block.products.resize(block.warps.size());
    block.threads = &launch.threads[rank * grid.n_threads];
    for (int i = 0; i < grid.n_threads; ++i) {
      Thread& thread = block.threads[i];
      thread.index = i;
      thread.block = &block;
      thread.place = {.thread = {static_cast<unsigned>(i), 0, 0},
                      .block = {block.index, 0, 0},
                      .block_size = {static_cast<unsigned>(grid.n_threads), 1, 1},
                      .grid_size = {static_cast<unsigned>(grid.n_blocks), 1, 1}};
      thread.has_ended = false;
      thread.word = nullptr;
      thread.copies.Reset();
    }
  }
  launch.cluster_meeting = Meeting();
}

// Lets time go by; false: nothing can happen any more.
bool Device::GoOn() {
  const bool any_resumed = ResumeThreads(true), any_finished = FinishSome(now_->pace.finishes);
  return any_resumed || any_finished || ResumeThreads(false) || FinishSome(0.5) || FinishSome(1);
}

void Device::EndCluster() {
  const auto is_live = [](const Block& block) { return block.n_live > 0; };
  while (std::any_of(now_->cluster.begin(), now_->cluster.end(), is_live)) {
    if (!GoOn()) SayWhoWaits();
  }
  if (!now_->bulk_copies.empty()) Fail("a block ended before copies into its shared memory did");
  for (const Block& block : now_->cluster) {
    if (now_->grid.overlaps && !block.has_awaited) {
      Fail("a block ended that may overlap with the kernel before, and did not wait for it");
    }
    for (const WarpProducts& products : block.products) {
      if (!products.IsIdle()) Fail("a warp ended before its products did");
    }
  }
}

void Device::Begin(const GridShape& grid, std::function<void()> kernel) {
  now_->grid = grid;
  now_->kernel = std::move(kernel);
  for (int i = 0; i < grid.cluster; ++i)
    now_->shared.push_back(MapGuarded(grid.shared_bytes, 1024));
  now_->order.resize(grid.n_blocks / grid.cluster);
  for (size_t i = 0; i < now_->order.size(); ++i) {
    now_->order[i] = static_cast<int64_t>(i) * grid.cluster;
  }
  std::shuffle(now_->order.begin(), now_->order.end(), random_);
  now_->cluster.resize(grid.cluster);
  BeginCluster();
}

// The kernel before has ended.
void Device::End() {
  for (Block& block : now_->cluster) block.before_ended = 1;
  EndCluster();
  while (!now_->order.empty()) {
    BeginCluster();
    EndCluster();
  }
  now_->cluster.clear();
  for (char* shared : now_->shared) UnmapGuarded(shared);
  now_->shared.clear();
}

// A kernel that may overlap begins as early as it could: one of its clusters goes as far as it gets
// without the end of the kernel before, while of the last few such a cluster waits, too, and
// nothing else of them has run.
void Device::Run(const GridShape& grid, const void* stream, std::function<void()> kernel) {
  if (grid.cluster * grid.n_threads > kMostThreads) Fail("a cluster of too many threads");
  const std::lock_guard lock(mutex_);
  if (!grid.overlaps || stream != stream_) EndAll();
  stream_ = stream;
  const auto is_idle = [this](const Launch& launch) {
    return std::find(begun_.begin(), begun_.end(), &launch) == begun_.end();
  };
  begun_.push_back(&*std::find_if(launches_.begin(), launches_.end(), is_idle));
  now_ = begun_.back();
  Begin(grid, std::move(kernel));
  for (Block& block : now_->cluster) block.before_ended = 0;
  while (GoOn()) continue;
  if (begun_.size() == launches_.size()) EndFirst();
}

void Device::EndFirst() {
  now_ = begun_.front();
  End();
  begun_.pop_front();
}

void Device::EndAll() {
  while (!begun_.empty()) EndFirst();
}

void Device::Finish() {
  const std::lock_guard lock(mutex_);
  EndAll();
}

void Device::SayWhoWaits() {
  std::map<std::string, int> waiting;
  for (const Block& block : now_->cluster) {
    for (int i = 0; i < block.n_threads; ++i) {
      const Thread& thread = block.threads[i];
      if (!thread.has_ended) ++waiting[thread.what];
    }
  }
  std::ostringstream message;
  message << "no thread of block " << now_->cluster.front().index << " can go on:";
  for (const auto& [what, n] : waiting) message << " " << n << " wait at " << what << ";";
  Fail(message.str());
}

namespace {

const char* const lost_file = std::getenv("GATEFOLD_EMULATOR_LOST_FILE");
std::atomic<bool> is_lost = false;

}  // namespace

std::atomic<int>& AllowedSharedBytes(const void* kernel) {
  static std::mutex mutex;
  static auto* const allowed = new std::map<const void*, std::atomic<int>>;
  const std::lock_guard lock(mutex);
  return (*allowed)[kernel];
}

bool IsLost() { return is_lost; }

void Run(const GridShape& grid, const void* stream, std::function<void()> kernel) {
  if (lost_file != nullptr && access(lost_file, F_OK) == 0) is_lost = true;
  if (is_lost) return;
  Queue::Get().Add(stream, [=] {
    const DeviceAccess access;
    Device::Get().Run(grid, stream, kernel);
  });
}

void Finish() {
  if (is_lost) return;
  const DeviceAccess access;
  Queue::Get().AwaitAll();
}

void Fail(const std::string& message) {
  std::ostringstream where;
  if (Device& device = Device::Get(); device.is_running()) {
    where << " (block " << device.current().block->index << ", thread " << device.current().index
          << ")";
  }
  std::fprintf(stderr, "emulated device: %s%s\n", message.c_str(), where.str().c_str());
  std::abort();
}

unsigned RankInCluster() { return Device::Get().current().block->rank; }

char* SharedMemory() { return Device::Get().current().block->shared; }

uint32_t SharedOffset(const void* pointer) {
  const Block& block = *Device::Get().current().block;
  const auto offset = static_cast<const char*>(pointer) - block.shared;
  if (offset < 0 || offset > block.shared_bytes) Fail("an address outside of shared memory");
  return static_cast<uint32_t>(offset) + kSharedBegin;
}

char* SharedPointer(uint32_t offset, int bytes) {
  const Block& block = *Device::Get().current().block;
  if (offset < kSharedBegin ||
      offset - kSharedBegin + bytes > static_cast<uint32_t>(block.shared_bytes)) {
    Fail("shared memory is touched outside of the block's");
  }
  return block.shared + (offset - kSharedBegin);
}

void AwaitChange(const uint32_t* word, uint32_t mask, uint32_t value, const char* what) {
  Device& device = Device::Get();
  Thread& thread = device.current();
  while ((*word & mask) == value) {
    thread.word = word;
    thread.mask = mask;
    thread.value = value;
    thread.what = what;
    device.Yield();
  }
}

void MeetWarp(const char* what, void* mine, const std::function<void(void* const*)>& all) {
  const Thread& thread = Device::Get().current();
  Meeting& meeting = thread.block->warps[thread.index / kWarpThreads];
  if (meeting.n > 0 && meeting.what != what && std::strcmp(meeting.what, what) != 0) {
    Fail(std::string("threads of a warp are at ") + meeting.what + " and at " + what);
  }
  meeting.what = what;
  meeting.things[thread.index % kWarpThreads] = mine;
  if (++meeting.n == kWarpThreads) {
    meeting.n = 0;
    all(meeting.things.data());
    ++meeting.generation;
  } else {
    AwaitChange(&meeting.generation, ~0u, meeting.generation, what);
  }
}

int MeetBlock(int id, int n_threads, bool is) {
  Block& block = *Device::Get().current().block;
  Meeting& meeting = block.meetings[id];
  meeting.n_saying_yes += is;
  if (++meeting.n == (id == 0 ? block.n_live : n_threads)) {
    meeting.last_saying_yes = meeting.n_saying_yes;
    meeting.n = meeting.n_saying_yes = 0;
    ++meeting.generation;
  } else {
    AwaitChange(&meeting.generation, ~0u, meeting.generation, "a barrier of the block");
  }
  return meeting.last_saying_yes;
}

void MeetCluster() {
  Device& device = Device::Get();
  Meeting& meeting = device.cluster_meeting();
  if (++meeting.n == static_cast<int>(device.cluster().size()) * device.grid().n_threads) {
    meeting.n = 0;
    ++meeting.generation;
  } else {
    AwaitChange(&meeting.generation, ~0u, meeting.generation, "a barrier of the cluster");
  }
}

}  // namespace gatefold::cuda::emulator
