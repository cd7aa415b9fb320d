#include "attention-service/sequence_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

SequenceTable::~SequenceTable() {
  for (const auto& [id, sequence] : sequences_) pool_->Release(sequence.blocks);
  Count(-size());
}

absl::Status SequenceTable::Open(const SequenceSpec& spec) {
  if (spec.n_positions < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("n_positions is ", spec.n_positions, ", must be at least 1"));
  }
  if (sequences_.contains(spec.id)) {
    return absl::AlreadyExistsError(absl::StrCat("sequence ", spec.id, " is open already"));
  }
  constexpr int block_tokens = KvShape::kBlockTokens;
  const int n_blocks = spec.n_positions / block_tokens + (spec.n_positions % block_tokens != 0);
  CachedSequence sequence;
  GF_ASSIGN_OR_RETURN(sequence.blocks, pool_->Acquire(n_blocks));
  sequence.sampling = spec.sampling;
  sequence.n_positions = spec.n_positions;
  sequences_.emplace(spec.id, std::move(sequence));
  Count(1);
  return absl::OkStatus();
}

void SequenceTable::Close(SequenceId id) {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) return;
  pool_->Release(it->second.blocks);
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

}  // namespace gatefold
