#include "attention-service/prefix_cache.h"

#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr KvShape kShape = {.n_layers = 1, .layout = {.n_kv_heads = 1, .head_dim = 4}};
constexpr int kBlock = KvShape::kBlockTokens;
constexpr uint32_t kDomain = 1;

// What a sequence does with the cache, without the computing.
class Holder {
 public:
  explicit Holder(PrefixCache* cache, std::vector<int32_t> tokens, uint64_t domain = kDomain)
      : cache_(cache), tokens_(std::move(tokens)), domain_(domain) {
    known_ = cache->Match(domain, tokens_, 1 << 20);
    n_hits_ = static_cast<int>(known_.size());
    const int n_blocks = static_cast<int>(tokens_.size() + kBlock - 1) / kBlock;
    auto own = cache->Acquire(n_blocks - n_hits_);
    if (own.ok()) {
      own_ = *own;
      fits_ = true;
    }
  }
  ~Holder() { cache_->Release(known_, own_); }
  Holder(const Holder&) = delete;

  bool fits() const { return fits_; }
  int n_hits() const { return n_hits_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  std::vector<BlockId> blocks() const {
    std::vector<BlockId> blocks;
    for (const CachedBlock* block : known_) blocks.push_back(block->block());
    blocks.insert(blocks.end(), own_.begin(), own_.end());
    return blocks;
  }

  // One block more is computed. False: there is none, or it cannot be known.
  bool PublishOne() {
    const size_t at = known_.size();
    if (!fits_ || own_.empty() || (at + 1) * kBlock > tokens_.size()) return false;
    const auto tokens = absl::MakeConstSpan(tokens_).subspan(at * kBlock, kBlock);
    CachedBlock* block =
        cache_->Publish(domain_, known_.empty() ? nullptr : known_.back(), tokens, own_.front());
    if (block == nullptr) return false;
    own_.erase(own_.begin());
    known_.push_back(block);
    return true;
  }
  void PublishAll() {
    while (PublishOne()) {
    }
  }

 private:
  PrefixCache* const cache_;
  const std::vector<int32_t> tokens_;
  const uint64_t domain_;
  std::vector<CachedBlock*> known_;
  std::vector<BlockId> own_;
  int n_hits_ = 0;
  bool fits_ = false;
};

std::vector<int32_t> Tokens(int n, int first = 0) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(first + i);
  return tokens;
}

class PrefixCacheTest : public testing::Test {
 protected:
  void Start(int n_blocks, PrefixCache::Options options = PrefixCache::Options()) {
    pool_ = *KvBlockPool::Create(kShape, kShape.BlockBytes() * n_blocks);
    cache_ = std::make_unique<PrefixCache>(pool_.get(), std::move(options));
  }
  int Hits(std::vector<int32_t> tokens, uint64_t domain = kDomain) {
    return Holder(cache_.get(), std::move(tokens), domain).n_hits();
  }

  std::unique_ptr<KvBlockPool> pool_;
  std::unique_ptr<PrefixCache> cache_;
};

TEST_F(PrefixCacheTest, FindsFullBlocksAfterTheirSequenceEnded) {
  Start(8);
  std::vector<BlockId> blocks;
  {
    Holder first(cache_.get(), Tokens(40));
    EXPECT_EQ(first.n_hits(), 0);
    first.PublishAll();
    blocks = first.blocks();
  }
  EXPECT_EQ(cache_->n_cached(), 2);  // the third block is not full
  EXPECT_EQ(pool_->n_free(), 6);
  Holder second(cache_.get(), Tokens(40));
  EXPECT_EQ(second.n_hits(), 2);
  EXPECT_EQ(second.blocks()[0], blocks[0]);
  EXPECT_EQ(second.blocks()[1], blocks[1]);
  EXPECT_EQ(cache_->n_cached(), 0);
}

TEST_F(PrefixCacheTest, SharesBlocksOfASequenceThatStillRuns) {
  Start(8);
  Holder first(cache_.get(), Tokens(64));
  first.PublishOne();
  Holder second(cache_.get(), Tokens(64));
  EXPECT_EQ(second.n_hits(), 1);
  EXPECT_EQ(cache_->n_available(), 1);
}

TEST_F(PrefixCacheTest, TheSameTokensAfterAnotherBeginningAreOthers) {
  Start(8);
  {
    Holder first(cache_.get(), Tokens(32));
    first.PublishAll();
  }
  std::vector<int32_t> other = Tokens(32);
  other[3] = 99;
  EXPECT_EQ(Hits(other), 0);
  EXPECT_EQ(Hits(Tokens(16, 16)), 0);
  other = Tokens(32);
  other[20] = 99;
  EXPECT_EQ(Hits(other), 1);
}

TEST_F(PrefixCacheTest, DomainsDoNotShare) {
  Start(8);
  {
    Holder first(cache_.get(), Tokens(32), 2);
    first.PublishAll();
    Holder nowhere(cache_.get(), Tokens(32), 0);
    EXPECT_EQ(nowhere.n_hits(), 0);
    EXPECT_FALSE(nowhere.PublishOne());
  }
  EXPECT_EQ(Hits(Tokens(32), 3), 0);
  EXPECT_EQ(Hits(Tokens(32), 2), 2);
}

TEST_F(PrefixCacheTest, TwoWhoComputeTheSameEndUpWithOneBlock) {
  Start(8);
  Holder first(cache_.get(), Tokens(32));
  Holder second(cache_.get(), Tokens(32));
  EXPECT_EQ(pool_->n_free(), 4);
  first.PublishAll();
  second.PublishAll();
  EXPECT_EQ(pool_->n_free(), 6);
  EXPECT_EQ(first.blocks(), second.blocks());
}

TEST_F(PrefixCacheTest, EvictsTheLeastRecentlyUsedAndTheEndOfAChainFirst) {
  Start(6);
  for (int first : {0, 100, 200}) Holder(cache_.get(), Tokens(32, first)).PublishAll();
  EXPECT_EQ(Hits(Tokens(32, 0)), 2);  // used again: now 100 is the oldest
  {
    Holder big(cache_.get(), Tokens(16, 300));
    ASSERT_TRUE(big.fits());
  }
  EXPECT_EQ(Hits(Tokens(32, 100)), 1);
  EXPECT_EQ(Hits(Tokens(32, 200)), 2);
  EXPECT_EQ(Hits(Tokens(32, 0)), 2);
}

TEST_F(PrefixCacheTest, NeverTakesAUsedBlock) {
  Start(4);
  Holder first(cache_.get(), Tokens(48));
  first.PublishAll();
  EXPECT_EQ(cache_->Acquire(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_->n_available(), 1);
  EXPECT_EQ(cache_->Flush(), 0);
  EXPECT_EQ(Hits(Tokens(48)), 3);
}

TEST_F(PrefixCacheTest, FlushFreesWhatNobodyUses) {
  Start(4);
  Holder(cache_.get(), Tokens(32)).PublishAll();
  EXPECT_EQ(cache_->Flush(), 2);
  EXPECT_EQ(pool_->n_free(), 4);
  EXPECT_EQ(Hits(Tokens(32)), 0);
}

TEST_F(PrefixCacheTest, KeepsNothingIfItIsOff) {
  PrefixCache::Options options;
  options.enabled = false;
  Start(4, options);
  Holder(cache_.get(), Tokens(32)).PublishAll();
  EXPECT_EQ(pool_->n_free(), 4);
  EXPECT_EQ(Hits(Tokens(32)), 0);
}

TEST_F(PrefixCacheTest, EqualNamesDoNotMakeOtherTokensAHit) {
  PrefixCache::Options options;
  options.hash = [](uint64_t, absl::Span<const int32_t>) { return uint64_t{7}; };
  Start(8, options);
  Holder first(cache_.get(), Tokens(32));
  EXPECT_TRUE(first.PublishOne());
  EXPECT_FALSE(first.PublishOne());  // its name is taken, so it stays its own
  EXPECT_EQ(first.blocks().size(), 2u);
  EXPECT_EQ(Hits(Tokens(16, 50)), 0);
  EXPECT_EQ(Hits(Tokens(32), kDomain + 1), 0);
  EXPECT_EQ(Hits(Tokens(32)), 1);
}

// Random sequences from a small alphabet come, compute and go in a pool too small for them, with a
// hash so bad that names collide. A model knows what every block holds.
TEST_F(PrefixCacheTest, NeverLosesABlockNorServesWrongTokens) {
  for (int seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    PrefixCache::Options options;
    if (seed % 2 == 1) {
      options.hash = [](uint64_t parent, absl::Span<const int32_t> tokens) {
        return (parent + tokens[0] + 3 * tokens[15]) % 11;
      };
    }
    const int n_blocks = 5 + seed % 20;
    Start(n_blocks, options);
    std::map<BlockId, std::vector<int32_t>> content;  // all tokens to the end of a block
    std::vector<std::unique_ptr<Holder>> holders;
    for (int round = 0; round < 400; ++round) {
      if (random() % 3 == 0 && !holders.empty()) {
        holders.erase(holders.begin() + random() % holders.size());
      } else if (random() % 2 == 0) {
        std::vector<int32_t> tokens;
        const int n = 1 + random() % 6;
        for (int i = 0; i < n; ++i) tokens.insert(tokens.end(), kBlock, random() % 2);
        tokens.resize(tokens.size() - random() % kBlock);
        auto holder = std::make_unique<Holder>(cache_.get(), tokens);
        for (int i = 0; i < holder->n_hits(); ++i) {
          const std::vector<int32_t> wanted(tokens.begin(), tokens.begin() + (i + 1) * kBlock);
          ASSERT_EQ(content[holder->blocks()[i]], wanted);
        }
        if (!holder->fits()) continue;
        for (size_t i = holder->n_hits(); (i + 1) * kBlock <= tokens.size(); ++i) {
          content[holder->blocks()[i]] = {tokens.begin(), tokens.begin() + (i + 1) * kBlock};
        }
        holders.push_back(std::move(holder));
      } else if (!holders.empty()) {
        holders[random() % holders.size()]->PublishOne();
      }
      std::set<BlockId> used;
      for (const auto& holder : holders) {
        const std::vector<BlockId> blocks = holder->blocks();
        used.insert(blocks.begin(), blocks.end());
      }
      ASSERT_EQ(static_cast<int>(used.size()) + cache_->n_available(), n_blocks);
    }
    holders.clear();
    EXPECT_EQ(cache_->n_available(), n_blocks);
    cache_->Flush();
    EXPECT_EQ(pool_->n_free(), n_blocks);
  }
}

}  // namespace
}  // namespace gatefold
