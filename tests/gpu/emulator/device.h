#pragma once

// What of the emulated device is not for kernels: its threads and who runs when.

#include <array>
#include <boost/context/fiber.hpp>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "tests/gpu/emulator/emulator.h"

namespace gatefold::cuda::emulator {

// What draws of all kinds begin with.
uint64_t Seed();

struct Block;

// Threads of a block that wait for each other.
struct Meeting {
  const char* what = "";
  int n = 0;             // here
  int n_saying_yes = 0;  // of them
  int last_saying_yes = 0;
  uint32_t generation = 0;  // meetings that were complete
  std::array<void*, kWarpThreads> things;
};

// A warp's part of the products that its warpgroup has started, in order. Sums in the making are
// kept apart from the threads' own, which are poisoned.
class WarpProducts {
 public:
  void Start(const std::array<Product, kWarpThreads>& of_threads, const Block* block, int warp);
  void Commit() { ++n_commits_; }
  // Until at most that many committed groups are unfinished.
  void Await(int n_pending_groups);
  bool IsIdle() const { return started_.empty(); }
  void FinishOne();

 private:
  struct Started {
    std::array<Product, kWarpThreads> of_threads;
    const Block* block;
    int warp;  // of the warpgroup
    int64_t commit;
  };
  struct Sums {
    std::vector<float> values;  // [16, n]
    int n_started = 0;
  };

  std::deque<Started> started_;
  std::map<const float*, Sums> sums_;  // by where the first thread keeps its own
  int64_t n_commits_ = 0;
};

// A thread's copies of 16 bytes each (cp.async).
class ThreadCopies {
 public:
  void Start(char* to, const char* from);  // from null: zeros
  void Commit() { ++n_commits_; }
  void Await(int n_pending_groups);
  bool IsIdle() const { return started_.empty(); }
  void FinishAny(std::mt19937_64& random);
  void Reset();

 private:
  struct Started {
    char* to;
    const char* from;
    int64_t commit;
  };
  static void Finish(const Started& copy);

  std::vector<Started> started_;
  int64_t n_commits_ = 0;
};

struct Thread {
  int index = 0;  // within the block
  Place place;
  Block* block = nullptr;
  bool has_ended = false;
  // What it waits for, if anything.
  const uint32_t* word = nullptr;
  uint32_t mask = 0, value = 0;
  const char* what = "";

  ThreadCopies copies;
  boost::context::fiber fiber, back;

  bool CanGoOn() const { return !has_ended && (word == nullptr || (*word & mask) != value); }
};

struct Block {
  unsigned index = 0;
  unsigned rank = 0;  // in the cluster
  int n_threads = 0;
  int n_live = 0;
  char* shared = nullptr;
  int shared_bytes = 0;
  bool has_awaited = false;   // the kernel before
  uint32_t before_ended = 1;  // that one; a word that threads wait for
  Thread* threads = nullptr;
  std::array<Meeting, 16> meetings;  // by the barrier's number
  std::vector<Meeting> warps;
  std::vector<WarpProducts> products;  // by warp
};

// A copy from global to one block's shared memory.
struct StartedBulkCopy {
  const Block* block;
  char* to;
  uint64_t* barrier;
  const char* from;
  uint32_t bytes;
};

void FinishBulkCopy(const StartedBulkCopy& copy);

// A kernel that was launched, and the cluster of it that runs.
struct Launch {
  // How time goes, drawn anew for each block or cluster.
  struct Pace {
    double finishes = 0;  // the chance of something asynchronous to end, each time around
    double stalls = 0;    // that of a warp to be passed over
    int turns = 1;        // of a warp in a row, at most
  };

  Launch();

  GridShape grid;
  std::function<void()> kernel;
  std::vector<int64_t> order;  // first blocks of the clusters that have not begun
  Pace pace;
  std::vector<char*> shared;  // of each block of a cluster
  std::vector<Block> cluster;
  Meeting cluster_meeting;
  std::vector<StartedBulkCopy> bulk_copies;
  std::unique_ptr<Thread[]> threads;  // kept for other kernels, as their fibers cannot be destroyed
};

class Device {
 public:
  static Device& Get() { return *the_device; }

  void Run(const GridShape& grid, const void* stream, std::function<void()> kernel);
  // Till all kernels have ended.
  void Finish();

  Thread& current() { return *current_; }
  const GridShape& grid() const { return now_->grid; }
  std::vector<Block>& cluster() { return now_->cluster; }
  Meeting& cluster_meeting() { return now_->cluster_meeting; }
  bool is_running() const { return current_ != nullptr; }

  void Yield();
  void Start(const StartedBulkCopy& copy) { now_->bulk_copies.push_back(copy); }
  // Whether something asynchronous that starts now is over at once.
  bool IsEager();

 private:
  static Device* const the_device;  // never destroyed: fibers cannot be

  Device();
  void Begin(const GridShape& grid, std::function<void()> kernel);
  void End();
  void EndFirst();
  void EndAll();
  void BeginCluster();
  bool GoOn();
  void EndCluster();
  bool ResumeThreads(bool stall);
  bool ResumeWarp(Block& block, int warp);
  bool FinishSome(double chance);
  void Resume(Thread& thread);
  [[noreturn]] void SayWhoWaits();
  double Draw() { return std::uniform_real_distribution<double>()(random_); }

  std::mutex mutex_;
  std::mt19937_64 random_;
  std::array<Launch, 4> launches_;
  Launch* now_ = nullptr;         // whose threads run
  std::deque<Launch*> begun_;     // which have not ended, the first one first
  const void* stream_ = nullptr;  // theirs
  Thread* current_ = nullptr;
};

// Memory that ends where nobody may read or write.
char* MapGuarded(size_t bytes, size_t align);
void UnmapGuarded(char* data);

// While a thread has one it may touch the device's memory; else that ends the process, where the
// processor can tell.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace gatefold::cuda::emulator
