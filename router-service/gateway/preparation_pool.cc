#include "router-service/gateway/preparation_pool.h"

#include <algorithm>
#include <utility>

namespace gatefold {

PreparationPool::PreparationPool(int n_threads, int capacity)
    : capacity_(capacity), max_long_running_(std::max(1, n_threads - 1)) {
  for (int i = 0; i < n_threads; ++i) threads_.emplace_back([this] { Run(); });
}

PreparationPool::~PreparationPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool PreparationPool::TryPost(Length length, std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  if (static_cast<int>(tasks_.size()) >= capacity_) return false;
  const auto is_long = [](const Task& each) { return each.length == Length::kLong; };
  if (length == Length::kLong &&
      std::count_if(tasks_.begin(), tasks_.end(), is_long) >= (capacity_ + 1) / 2) {
    return false;
  }
  tasks_.push_back({length, std::move(task)});
  return true;
}

std::deque<PreparationPool::Task>::iterator PreparationPool::Next() {
  const bool any = n_long_running_ < max_long_running_;
  return std::find_if(tasks_.begin(), tasks_.end(),
                      [any](const Task& task) { return any || task.length == Length::kShort; });
}

void PreparationPool::Run() {
  const auto news = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return (stopping_ && tasks_.empty()) || Next() != tasks_.end();
  };
  while (true) {
    Task task;
    {
      absl::MutexLock lock(&mu_, absl::Condition(&news));
      if (tasks_.empty()) return;
      const auto next = Next();
      task = std::move(*next);
      tasks_.erase(next);
      n_long_running_ += task.length == Length::kLong;
    }
    task.run();
    task.run = nullptr;
    absl::MutexLock lock(&mu_);
    n_long_running_ -= task.length == Length::kLong;
  }
}

}  // namespace gatefold
