#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// The ids that a model expects around a text.
struct PostProcessor {
  std::vector<int32_t> prefix_ids, suffix_ids;

  // The "post_processor" of a tokenizer.json; null adds nothing. Ids are below `vocab_size`.
  // Unimplemented for a type that is not supported.
  static absl::StatusOr<PostProcessor> FromJson(const nlohmann::json& json, int vocab_size);
};

}  // namespace gatefold
