#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention-service/prefix_cache.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// One sequence as attention knows it.
struct CachedSequence {
  SamplingParams sampling;
  uint64_t cache_domain = 0;
  int n_positions = 0;              // it may come to have
  std::vector<BlockId> blocks;      // its block table: position p is in blocks[p / block_tokens]
  std::vector<CachedBlock*> known;  // of its first blocks: those that others may share
  std::vector<int32_t> tokens;      // whose first layer was computed, or is being
  int n_complete = 0;               // positions that are computed in every layer
  StepSpan under_way;               // the last span that began, and the layer it has come to
  int next_layer = 0;
  uint64_t last_call = 0;  // that had a span of it
};

// The sequences of one lane. Their KV blocks go back to the cache when they are closed, all of them
// with the table. Threads: one at a time.
class SequenceTable {
 public:
  // The cache outlives the table, and so does `n_open`, which counts the sequences of all tables
  // that share it; null: nobody counts.
  explicit SequenceTable(PrefixCache* cache, std::atomic<int>* n_open = nullptr)
      : cache_(cache), n_open_(n_open) {}
  ~SequenceTable();
  SequenceTable(const SequenceTable&) = delete;
  SequenceTable& operator=(const SequenceTable&) = delete;

  // Returns how many of its positions are computed already: whole blocks. They are shared with
  // sequences of the same `cache_domain` only; 0: with none (see PrefixCache::Match).
  // Errors: kResourceExhausted; kAlreadyExists; kInvalidArgument for a length below 1 or one that
  // all KV blocks together cannot hold.
  absl::StatusOr<int> Open(const SequenceSpec& spec, uint64_t cache_domain);
  void Close(SequenceId id);  // unknown ids are ignored
  void CloseAll();

  // kAborted if it is not here: its keys and values must be computed again.
  absl::StatusOr<CachedSequence*> Find(SequenceId id);
  // For the spans of one call, which get a number that is theirs alone: kInvalidArgument if another
  // of them is the sequence's already, for they would write the same keys and values.
  absl::StatusOr<CachedSequence*> FindOnce(SequenceId id, uint64_t call);
  uint64_t NextCall() { return ++n_calls_; }

  // Takes KV blocks until there are enough for `n_positions`. kResourceExhausted: none taken.
  absl::Status Grow(CachedSequence* sequence, int n_positions);

  // To be told when the keys and values of a span are written in `layer`, so that blocks that are
  // full in every layer can be shared. They are the same blocks or equal ones afterwards.
  void LayerDone(CachedSequence* sequence, const StepSpan& span, int layer);

  int size() const { return static_cast<int>(sequences_.size()); }

 private:
  void Count(int opened) {
    if (n_open_ != nullptr) *n_open_ += opened;
  }

  void Free(const CachedSequence& sequence);
  void Publish(CachedSequence* sequence);

  PrefixCache* const cache_;
  std::atomic<int>* const n_open_;
  std::unordered_map<SequenceId, CachedSequence> sequences_;
  uint64_t n_calls_ = 0;
};

}  // namespace gatefold
