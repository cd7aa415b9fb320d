#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace gatefold {

// Names the tokens from a sequence's start to the end of a KV block: a chain, so that equal blocks
// after different beginnings have different names. `parent` is the name of the block before, or the
// cache domain (see SequenceTable::Open) for the first. The same in every process and version that
// shares a cluster; not cryptographic: who acts on a name compares the tokens.
uint64_t PrefixHash(uint64_t parent, absl::Span<const int32_t> block_tokens);

}  // namespace gatefold
