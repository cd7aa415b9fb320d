#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace gatefold {

// Remembers at which attention-service prompts were computed, by the names of their blocks
// (PrefixHash), so that one that begins alike goes where its keys and values may still be. Only a
// hint: a wrong or forgotten one costs time, never tokens. Bounded: the least recently used names
// are forgotten. Its memory (37 bytes a name) is taken at once, so that a router under load does
// not seem to grow for hours. One for all lanes of a router. Threads: safe.
class PrefixAffinity {
 public:
  // Tokens that one name stands for: those of a KV block.
  static constexpr int kBlockTokens = 16;
  // Of a prompt, at most so many blocks are remembered.
  static constexpr size_t kMaxBlocks = 4096;

  // capacity: names, at least 1.
  explicit PrefixAffinity(uint32_t capacity = uint32_t{1} << 17);

  // Names of the full blocks of `tokens`, first to last.
  static std::vector<uint64_t> Names(uint64_t cache_domain, absl::Span<const int32_t> tokens);

  // How many of these blocks, from the first on, were computed by the service of this incarnation.
  int Known(absl::Span<const uint64_t> names, uint64_t incarnation);
  // They are, or soon will be. Whoever had them before is forgotten.
  void Remember(absl::Span<const uint64_t> names, uint64_t incarnation);

  size_t size() const;

 private:
  using Index = uint32_t;  // of an entry
  static constexpr Index kNone = ~Index{0};

  struct Entry {
    uint64_t name = 0;
    uint64_t incarnation = 0;
    Index older = kNone, newer = kNone;  // by use
    Index next = kNone;                  // of those with the same first bits
  };

  Index* Chain(uint64_t name) { return &first_[name % first_.size()]; }
  Index Find(uint64_t name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A free entry, or the oldest one, out of its chain and out of the order of use.
  Index Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Detach(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void BecomeNewest(Index index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);  // the first n_used_ are in use
  std::vector<Index> first_;                         // of each chain
  size_t n_used_ ABSL_GUARDED_BY(mu_) = 0;
  Index oldest_ ABSL_GUARDED_BY(mu_) = kNone;
  Index newest_ ABSL_GUARDED_BY(mu_) = kNone;
};

}  // namespace gatefold
