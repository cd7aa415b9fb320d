#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "attention-service/kv_block_pool.h"
#include "gatefold/engine/prefix_hash.h"

namespace gatefold {

// A full KV block whose content is known by the tokens it was computed from. Shared by sequences
// that begin alike; it outlives them until its memory is needed. Made and deleted by the cache.
class CachedBlock {
 public:
  BlockId block() const { return block_; }

 private:
  friend class PrefixCache;
  uint64_t name_ = 0;  // PrefixHash of its tokens and all before
  uint64_t domain_ = 0;
  uint64_t serial_ = 0;          // not 0, and never used twice
  uint64_t parent_ = 0;          // serial of the block before it; 0 for the first
  std::vector<int32_t> tokens_;  // compared on every hit: a name alone proves nothing
  BlockId block_ = -1;
  int n_users_ = 0;                         // sequences that hold it
  std::list<CachedBlock*>::iterator idle_;  // its place among the idle ones, if n_users_ is 0
};

// Hands out the pool's KV blocks, and keeps full ones by what they hold, so that a prompt that
// begins like an earlier one need not be computed again. Every block is in one of three states:
// free, used (by one sequence, or by several that share it), or cached: full, known, and used by
// nobody. Cached ones are taken, least recently used first, when free ones run out; a block always
// goes before the one it follows. So the pool bounds the cache, which takes nothing from sequences.
// Threads: safe.
class PrefixCache {
 public:
  struct Options {
    bool enabled = true;  // false: nothing is kept, nothing is found
    std::function<uint64_t(uint64_t, absl::Span<const int32_t>)> hash = PrefixHash;  // for tests
  };
  // The pool outlives the cache and is used by nobody else.
  explicit PrefixCache(KvBlockPool* pool) : PrefixCache(pool, Options()) {}
  PrefixCache(KvBlockPool* pool, Options options);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The longest known beginning of `tokens`, at most `max_blocks` long, for its caller to use until
  // Release. Sequences of different domains never share: what else than tokens decides about keys
  // and values (the precision of hidden states between services, for one) differs between them.
  // Domain 0: nothing is shared.
  std::vector<CachedBlock*> Match(uint64_t domain, absl::Span<const int32_t> tokens,
                                  int max_blocks);

  // All `count` blocks or none: kResourceExhausted, with nothing taken.
  absl::StatusOr<std::vector<BlockId>> Acquire(int count);

  // Makes a block that its caller has computed known, `parent` being the block before it (null: it
  // is the first). Takes the block over and returns what to use in its place until Release: it or
  // an equal one that was known already. Null if it cannot be known (the cache is off, or its name
  // is taken by other tokens): the block is still the caller's, and so are those after it.
  CachedBlock* Publish(uint64_t domain, const CachedBlock* parent, absl::Span<const int32_t> tokens,
                       BlockId block);

  // Gives back what one sequence used: its known blocks in the order of their positions, and those
  // that are its own.
  void Release(absl::Span<CachedBlock* const> known, absl::Span<const BlockId> own);

  // Forgets all cached blocks; returns how many are free for it. Used ones stay known.
  int Flush();

  const KvShape& shape() const { return pool_->shape(); }
  KvBlockPool* pool() const { return pool_; }
  int n_blocks() const { return pool_->n_blocks(); }
  int n_cached() const;
  // Blocks that Acquire can give: free and cached.
  int n_available() const;

 private:
  CachedBlock* Find(uint64_t name, uint64_t domain, uint64_t parent,
                    absl::Span<const int32_t> tokens) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Use(CachedBlock* known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The least recently used cached block becomes free.
  void Evict() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  KvBlockPool* const pool_;
  const Options options_;
  mutable absl::Mutex mu_;
  std::unordered_map<uint64_t, std::unique_ptr<CachedBlock>> known_ ABSL_GUARDED_BY(mu_);  // names
  std::list<CachedBlock*> idle_ ABSL_GUARDED_BY(mu_);  // cached ones, least recently used first
  uint64_t next_serial_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace gatefold
