#include "attention-service/sequence_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr int kBlockTokens = KvShape::kBlockTokens;

int BlocksFor(int n_positions) {
  return n_positions / kBlockTokens + (n_positions % kBlockTokens != 0);
}

}  // namespace

SequenceTable::~SequenceTable() { CloseAll(); }

void SequenceTable::CloseAll() {
  for (const auto& [id, sequence] : sequences_) Free(sequence);
  Count(-size());
  sequences_.clear();
}

absl::StatusOr<int> SequenceTable::Open(const SequenceSpec& spec, uint64_t cache_domain) {
  if (spec.n_positions < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("n_positions is ", spec.n_positions, ", must be at least 1"));
  }
  if (BlocksFor(spec.n_positions) > cache_->n_blocks()) {
    return absl::InvalidArgumentError(absl::StrCat("n_positions is ", spec.n_positions,
                                                   ", which takes ", BlocksFor(spec.n_positions),
                                                   " KV blocks; there are ", cache_->n_blocks()));
  }
  if (sequences_.contains(spec.id)) {
    return absl::AlreadyExistsError(absl::StrCat("sequence ", spec.id, " is open already"));
  }
  CachedSequence sequence;
  sequence.sampling = spec.sampling;
  sequence.cache_domain = cache_domain;
  sequence.n_positions = spec.n_positions;
  const int max_cached = std::min(spec.max_cached, spec.n_positions);
  sequence.known = cache_->Match(cache_domain, spec.tokens, max_cached / kBlockTokens);
  for (const CachedBlock* known : sequence.known) sequence.blocks.push_back(known->block());
  const int n_reserved = spec.n_reserved == 0 ? spec.n_positions : spec.n_reserved;
  if (absl::Status grown = Grow(&sequence, std::min(n_reserved, spec.n_positions)); !grown.ok()) {
    Free(sequence);
    return grown;
  }
  const int n_cached = static_cast<int>(sequence.known.size()) * kBlockTokens;
  sequence.tokens.assign(spec.tokens.begin(), spec.tokens.begin() + n_cached);
  sequence.n_complete = n_cached;
  sequences_.emplace(spec.id, std::move(sequence));
  Count(1);
  return n_cached;
}

void SequenceTable::Close(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  Free(it->second);
  sequences_.erase(it);
  Count(-1);
}

absl::StatusOr<CachedSequence*> SequenceTable::Find(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) {
    return absl::AbortedError(absl::StrCat("sequence ", id, " has no KV cache here"));
  }
  return &it->second;
}

absl::StatusOr<CachedSequence*> SequenceTable::FindOnce(SequenceId id, uint64_t call) {
  GF_ASSIGN_OR_RETURN(CachedSequence * sequence, Find(id));
  if (std::exchange(sequence->last_call, call) == call) {
    return absl::InvalidArgumentError(absl::StrCat("spans has sequence ", id, " twice"));
  }
  return sequence;
}

absl::Status SequenceTable::Grow(CachedSequence* sequence, int n_positions) {
  const int n_more = BlocksFor(n_positions) - static_cast<int>(sequence->blocks.size());
  if (n_more <= 0) return absl::OkStatus();
  GF_ASSIGN_OR_RETURN(const std::vector<BlockId> blocks, cache_->Acquire(n_more));
  sequence->blocks.insert(sequence->blocks.end(), blocks.begin(), blocks.end());
  return absl::OkStatus();
}

void SequenceTable::LayerDone(CachedSequence* sequence, const StepSpan& span, int layer) {
  StepSpan& under_way = sequence->under_way;
  if (layer == 0) {
    under_way = span;
    sequence->next_layer = 0;
  }
  // Only a span that went through all layers in their order is known to be there in all.
  const bool follows = under_way.first_position == span.first_position &&
                       under_way.n_tokens == span.n_tokens && sequence->next_layer == layer;
  sequence->next_layer = follows ? layer + 1 : -1;
  if (sequence->next_layer < cache_->shape().n_layers) return;
  if (span.first_position <= sequence->n_complete) {
    sequence->n_complete = std::max(sequence->n_complete, span.first_position + span.n_tokens);
  }
  Publish(sequence);
}

void SequenceTable::Publish(CachedSequence* sequence) {
  std::vector<CachedBlock*>& known = sequence->known;
  while (static_cast<int>(known.size() + 1) * kBlockTokens <= sequence->n_complete) {
    const auto tokens =
        absl::MakeConstSpan(sequence->tokens).subspan(known.size() * kBlockTokens, kBlockTokens);
    BlockId& block = sequence->blocks[known.size()];
    CachedBlock* published = cache_->Publish(sequence->cache_domain,
                                             known.empty() ? nullptr : known.back(), tokens, block);
    if (published == nullptr) return;
    block = published->block();
    known.push_back(published);
  }
}

void SequenceTable::Free(const CachedSequence& sequence) {
  cache_->Release(sequence.known,
                  absl::MakeConstSpan(sequence.blocks).subspan(sequence.known.size()));
}

}  // namespace gatefold
