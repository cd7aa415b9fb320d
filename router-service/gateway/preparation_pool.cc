#include "router-service/gateway/preparation_pool.h"

#include <utility>

namespace gatefold {

PreparationPool::PreparationPool(int n_threads, int capacity) : capacity_(capacity) {
  for (int i = 0; i < n_threads; ++i) threads_.emplace_back([this] { Run(); });
}

PreparationPool::~PreparationPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool PreparationPool::TryPost(std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  if (static_cast<int>(tasks_.size()) >= capacity_) return false;
  tasks_.push_back(std::move(task));
  return true;
}

void PreparationPool::Run() {
  const auto news = [this]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !tasks_.empty(); };
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mu_, absl::Condition(&news));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace gatefold
