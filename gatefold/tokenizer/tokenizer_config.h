#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/added_tokens.h"

namespace gatefold {

// What tokenizer_config.json says about tokens.
struct TokenizerConfig {
  std::string bos_token, eos_token;  // "" where the file names none
  std::optional<bool> add_bos_token, add_eos_token;
  std::vector<AddedToken> added_tokens;
};

// The file's text. InvalidArgument with the field.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(absl::string_view json);

// One element of "added_tokens" or "added_tokens_decoder", without its id.
AddedToken ReadAddedToken(class JsonFields* fields);

}  // namespace gatefold
