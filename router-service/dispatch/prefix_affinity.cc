#include "router-service/dispatch/prefix_affinity.h"

#include <algorithm>

#include "gatefold/engine/prefix_hash.h"

namespace gatefold {

std::vector<uint64_t> PrefixAffinity::Names(uint32_t cache_domain,
                                            absl::Span<const int32_t> tokens) {
  std::vector<uint64_t> names(std::min(tokens.size() / kBlockTokens, kMaxBlocks));
  uint64_t name = cache_domain;
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = name = PrefixHash(name, tokens.subspan(i * kBlockTokens, kBlockTokens));
  }
  return names;
}

int PrefixAffinity::Known(absl::Span<const uint64_t> names, uint64_t incarnation) {
  absl::MutexLock lock(&mu_);
  int n_known = 0;
  for (uint64_t name : names) {
    const auto it = entries_.find(name);
    if (it == entries_.end() || it->second.incarnation != incarnation) break;
    ++n_known;
  }
  return n_known;
}

void PrefixAffinity::Remember(absl::Span<const uint64_t> names, uint64_t incarnation) {
  absl::MutexLock lock(&mu_);
  // Last to first: the beginning of a prompt is of more use, and is forgotten after its end.
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const auto [it, is_new] = entries_.try_emplace(*name);
    it->second.incarnation = incarnation;
    if (is_new) {
      it->second.use = uses_.insert(uses_.end(), *name);
    } else {
      uses_.splice(uses_.end(), uses_, it->second.use);
    }
  }
  while (entries_.size() > capacity_) {
    entries_.erase(uses_.front());
    uses_.pop_front();
  }
}

size_t PrefixAffinity::size() const {
  absl::MutexLock lock(&mu_);
  return entries_.size();
}

}  // namespace gatefold
