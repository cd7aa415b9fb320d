#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// What the gateway sees of the scheduler: submit, cancel, look. Threads: safe.
class GenerationService {
 public:
  // Cancels its generation when destroyed (its KV blocks are free within a step), unless it ended.
  class Handle {
   public:
    virtual ~Handle() = default;
  };

  struct Load {
    int n_running = 0;
    int n_waiting = 0;
  };

  virtual ~GenerationService() = default;

  // Errors: kResourceExhausted (QUEUE_FULL, with a retry delay) when the queue is full;
  // kUnavailable while the model is loading or the service drains.
  virtual absl::StatusOr<std::unique_ptr<Handle>> Submit(
      GenerationRequest request, std::shared_ptr<GenerationListener> listener) = 0;

  virtual Load load() const = 0;

  // Positions (prompt and output together) one sequence may have; KV memory may allow fewer than
  // the model.
  virtual int max_sequence_tokens() const = 0;
};

}  // namespace gatefold
