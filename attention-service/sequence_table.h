#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention-service/kv_block_pool.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// One sequence as attention knows it.
struct CachedSequence {
  SamplingParams sampling;
  int n_positions = 0;          // reserved
  std::vector<BlockId> blocks;  // its block table: position p is in blocks[p / block_tokens]
  std::vector<int32_t> tokens;  // whose first layer was computed, or is being
};

// The sequences of one lane. Their KV blocks go back to the pool when they are closed, all of them
// with the table. Threads: one at a time.
class SequenceTable {
 public:
  // The pool outlives the table, and so does `n_open`, which counts the sequences of all tables
  // that share it; null: nobody counts.
  explicit SequenceTable(KvBlockPool* pool, std::atomic<int>* n_open = nullptr)
      : pool_(pool), n_open_(n_open) {}
  ~SequenceTable();
  SequenceTable(const SequenceTable&) = delete;
  SequenceTable& operator=(const SequenceTable&) = delete;

  // Errors: kResourceExhausted; kAlreadyExists; kInvalidArgument for a length below 1.
  absl::Status Open(const SequenceSpec& spec);
  void Close(SequenceId id);  // unknown ids are ignored

  // kAborted if it is not here: its keys and values must be computed again.
  absl::StatusOr<CachedSequence*> Find(SequenceId id);

  int size() const { return static_cast<int>(sequences_.size()); }

 private:
  void Count(int opened) {
    if (n_open_ != nullptr) *n_open_ += opened;
  }

  KvBlockPool* const pool_;
  std::atomic<int>* const n_open_;
  std::unordered_map<SequenceId, CachedSequence> sequences_;
};

}  // namespace gatefold
