#include "tests/gpu/emulator/queue.h"

#include <algorithm>
#include <utility>

#include "tests/gpu/emulator/device.h"

namespace gatefold::cuda::emulator {

Queue& Queue::Get() {
  static Queue* const queue = new Queue;
  return *queue;
}

Queue::Queue() : random_(Seed()) {}

void Queue::Add(const void* stream, std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(work));
  const uint64_t last = n_done_ + waiting_.size();
  last_of_stream_[stream] = last;
  if (waiting_.size() > kMost) {
    Do(last - kMost / 2);
  } else if (random_() % 16 < eager_) {
    Do(last - random_() % waiting_.size());
  }
}

void Queue::AwaitAll() { Await(number()); }

void Queue::AwaitStream(const void* stream) {
  uint64_t last = 0;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = last_of_stream_.find(stream); found != last_of_stream_.end()) {
      last = found->second;
    }
  }
  Await(last);
}

void Queue::Await(uint64_t number) {
  const std::lock_guard lock(mutex_);
  Do(number);
  Device::Get().Finish();
  constexpr unsigned kEager[] = {0, 0, 1, 16};
  eager_ = kEager[random_() % 4];
}

uint64_t Queue::number() {
  const std::lock_guard lock(mutex_);
  return n_done_ + waiting_.size();
}

void Queue::Do(uint64_t number) {
  for (; n_done_ < number; ++n_done_) {
    const std::function<void()> work = std::move(waiting_.front());
    waiting_.pop_front();
    work();
  }
}

}  // namespace gatefold::cuda::emulator
