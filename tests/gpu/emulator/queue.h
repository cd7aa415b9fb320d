#pragma once

// What the host has asked the device for and did not wait for yet.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>

namespace gatefold::cuda::emulator {

// Work happens in the order in which it was asked for, whatever the streams, at a moment drawn at
// random before somebody waits for it: so a host that frees or changes what a copy still reads, or
// reads what nobody waited for, is seen to. Threads: safe.
class Queue {
 public:
  static Queue& Get();

  // Adds it; what was asked for earlier may happen now.
  void Add(const void* stream, std::function<void()> work);
  // Until that has happened: everything; what was asked of a stream; the first `number` pieces.
  void AwaitAll();
  void AwaitStream(const void* stream);
  void Await(uint64_t number);
  // Pieces that were asked for so far.
  uint64_t number();

 private:
  Queue();
  void Do(uint64_t number);

  static constexpr size_t kMost = 256;

  std::mutex mutex_;
  std::mt19937_64 random_;
  unsigned eager_ = 0;  // how many of 16 pieces let those before them happen; drawn at every wait
  std::deque<std::function<void()>> waiting_;
  uint64_t n_done_ = 0;
  std::map<const void*, uint64_t> last_of_stream_;
};

}  // namespace gatefold::cuda::emulator
