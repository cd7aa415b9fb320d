#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace gatefold {

// Remembers at which attention-service prompts were computed, by the names of their blocks
// (PrefixHash), so that one that begins alike goes where its keys and values may still be. Only a
// hint: a wrong or forgotten one costs time, never tokens. Bounded: the least recently used names
// are forgotten. One for all lanes of a router. Threads: safe.
class PrefixAffinity {
 public:
  // Tokens that one name stands for: those of a KV block.
  static constexpr int kBlockTokens = 16;
  // Of a prompt, at most so many blocks are remembered.
  static constexpr size_t kMaxBlocks = 4096;

  explicit PrefixAffinity(size_t capacity = size_t{1} << 17) : capacity_(capacity) {}

  // Names of the full blocks of `tokens`, first to last.
  static std::vector<uint64_t> Names(uint32_t cache_domain, absl::Span<const int32_t> tokens);

  // How many of these blocks, from the first on, were computed by the service of this incarnation.
  int Known(absl::Span<const uint64_t> names, uint64_t incarnation);
  // They are, or soon will be. Whoever had them before is forgotten.
  void Remember(absl::Span<const uint64_t> names, uint64_t incarnation);

  size_t size() const;

 private:
  struct Entry {
    uint64_t incarnation = 0;
    std::list<uint64_t>::iterator use;
  };

  const size_t capacity_;
  mutable absl::Mutex mu_;
  std::unordered_map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::list<uint64_t> uses_ ABSL_GUARDED_BY(mu_);  // names, least recently used first
};

}  // namespace gatefold
