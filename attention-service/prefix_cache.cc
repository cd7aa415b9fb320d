#include "attention-service/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr size_t kBlockTokens = KvShape::kBlockTokens;

}  // namespace

PrefixCache::PrefixCache(KvBlockPool* pool, Options options)
    : pool_(pool), options_(std::move(options)) {}

PrefixCache::~PrefixCache() { Flush(); }

std::vector<CachedBlock*> PrefixCache::Match(uint64_t domain, absl::Span<const int32_t> tokens,
                                             int max_blocks) {
  std::vector<CachedBlock*> found;
  if (domain == 0 || !options_.enabled) return found;
  const size_t n = std::min<size_t>(tokens.size() / kBlockTokens, std::max(max_blocks, 0));
  absl::MutexLock lock(&mu_);
  uint64_t name = domain;
  uint64_t parent = 0;
  while (found.size() < n) {
    const auto block_tokens = tokens.subspan(found.size() * kBlockTokens, kBlockTokens);
    name = options_.hash(name, block_tokens);
    CachedBlock* known = Find(name, domain, parent, block_tokens);
    if (known == nullptr) break;
    Use(known);
    parent = known->serial_;
    found.push_back(known);
  }
  return found;
}

absl::StatusOr<std::vector<BlockId>> PrefixCache::Acquire(int count) {
  absl::MutexLock lock(&mu_);
  const int n_free = pool_->n_free();
  if (count > n_free + static_cast<int>(idle_.size())) {
    return absl::ResourceExhaustedError(absl::StrCat("wanted ", count, " KV blocks, of ",
                                                     pool_->n_blocks(), " there are ", n_free,
                                                     " free and ", idle_.size(), " cached"));
  }
  for (int i = n_free; i < count; ++i) Evict();
  return pool_->Acquire(count);
}

CachedBlock* PrefixCache::Publish(uint64_t domain, const CachedBlock* parent,
                                  absl::Span<const int32_t> tokens, BlockId block) {
  GF_CHECK(tokens.size() == kBlockTokens);
  if (domain == 0 || !options_.enabled) return nullptr;
  absl::MutexLock lock(&mu_);
  const uint64_t name = options_.hash(parent == nullptr ? domain : parent->name_, tokens);
  const uint64_t parent_serial = parent == nullptr ? 0 : parent->serial_;
  if (CachedBlock* known = Find(name, domain, parent_serial, tokens); known != nullptr) {
    // Somebody computed the same at the same time. By the row law the bits are the same, too.
    Use(known);
    pool_->Release({block});
    return known;
  }
  std::unique_ptr<CachedBlock>& entry = known_[name];
  if (entry != nullptr) return nullptr;
  entry = std::make_unique<CachedBlock>();
  entry->name_ = name;
  entry->domain_ = domain;
  entry->serial_ = next_serial_++;
  entry->parent_ = parent_serial;
  entry->tokens_.assign(tokens.begin(), tokens.end());
  entry->block_ = block;
  entry->n_users_ = 1;
  return entry.get();
}

void PrefixCache::Release(absl::Span<CachedBlock* const> known, absl::Span<const BlockId> own) {
  absl::MutexLock lock(&mu_);
  // Last position first: a block is used by all who use one that follows it, so it becomes idle
  // after them, and is evicted after them.
  for (auto it = known.rbegin(); it != known.rend(); ++it) {
    CachedBlock* block = *it;
    GF_CHECK(block->n_users_ > 0);
    if (--block->n_users_ == 0) block->idle_ = idle_.insert(idle_.end(), block);
  }
  pool_->Release({own.begin(), own.end()});
}

int PrefixCache::Flush() {
  absl::MutexLock lock(&mu_);
  const int n = static_cast<int>(idle_.size());
  while (!idle_.empty()) Evict();
  return n;
}

int PrefixCache::n_cached() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(idle_.size());
}

int PrefixCache::n_available() const {
  absl::MutexLock lock(&mu_);
  return pool_->n_free() + static_cast<int>(idle_.size());
}

CachedBlock* PrefixCache::Find(uint64_t name, uint64_t domain, uint64_t parent,
                               absl::Span<const int32_t> tokens) {
  const auto it = known_.find(name);
  if (it == known_.end()) return nullptr;
  CachedBlock* known = it->second.get();
  // Its parent was compared in the same way, and so on: all tokens before are equal as well.
  const bool equal = known->domain_ == domain && known->parent_ == parent &&
                     tokens == absl::MakeConstSpan(known->tokens_);
  return equal ? known : nullptr;
}

void PrefixCache::Use(CachedBlock* known) {
  if (known->n_users_++ == 0) idle_.erase(known->idle_);
}

void PrefixCache::Evict() {
  GF_CHECK(!idle_.empty());
  CachedBlock* known = idle_.front();
  idle_.pop_front();
  pool_->Release({known->block_});
  known_.erase(known->name_);
}

}  // namespace gatefold
