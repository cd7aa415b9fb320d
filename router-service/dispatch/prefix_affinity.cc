#include "router-service/dispatch/prefix_affinity.h"

#include <algorithm>

#include "gatefold/engine/prefix_hash.h"

namespace gatefold {

PrefixAffinity::PrefixAffinity(uint32_t capacity)
    : entries_(std::max(capacity, 1u)), first_(entries_.size() + entries_.size() / 4 + 1, kNone) {}

std::vector<uint64_t> PrefixAffinity::Names(uint64_t cache_domain,
                                            absl::Span<const int32_t> tokens) {
  std::vector<uint64_t> names(std::min(tokens.size() / kBlockTokens, kMaxBlocks));
  uint64_t name = cache_domain;
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = name = PrefixHash(name, tokens.subspan(i * kBlockTokens, kBlockTokens));
  }
  return names;
}

PrefixAffinity::Index PrefixAffinity::Find(uint64_t name) {
  Index index = *Chain(name);
  while (index != kNone && entries_[index].name != name) index = entries_[index].next;
  return index;
}

void PrefixAffinity::Detach(Index index) {
  const Entry& entry = entries_[index];
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
}

void PrefixAffinity::BecomeNewest(Index index) {
  entries_[index].older = newest_;
  entries_[index].newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = index;
  newest_ = index;
}

PrefixAffinity::Index PrefixAffinity::Take() {
  if (n_used_ < entries_.size()) return static_cast<Index>(n_used_++);
  const Index index = oldest_;
  Detach(index);
  Index* link = Chain(entries_[index].name);
  while (*link != index) link = &entries_[*link].next;
  *link = entries_[index].next;
  return index;
}

int PrefixAffinity::Known(absl::Span<const uint64_t> names, uint64_t incarnation) {
  absl::MutexLock lock(&mu_);
  int n_known = 0;
  for (uint64_t name : names) {
    const Index index = Find(name);
    if (index == kNone || entries_[index].incarnation != incarnation) break;
    ++n_known;
  }
  return n_known;
}

void PrefixAffinity::Remember(absl::Span<const uint64_t> names, uint64_t incarnation) {
  absl::MutexLock lock(&mu_);
  // Last to first: the beginning of a prompt is of more use, and is forgotten after its end.
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    Index index = Find(*name);
    if (index != kNone) {
      Detach(index);
    } else {
      index = Take();
      entries_[index].name = *name;
      entries_[index].next = std::exchange(*Chain(*name), index);
    }
    entries_[index].incarnation = incarnation;
    BecomeNewest(index);
  }
}

size_t PrefixAffinity::size() const {
  absl::MutexLock lock(&mu_);
  return n_used_;
}

}  // namespace gatefold
