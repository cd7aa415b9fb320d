#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "router-service/gateway/text_codec.h"

namespace gatefold {

// The codec of a model folder's tokenizer. Null if the folder has none: such a model serves token
// ids alone. Errors: those of Tokenizer::Load for one that is there and cannot be read.
absl::StatusOr<std::shared_ptr<const TextCodec>> LoadTokenizerCodec(const std::string& model_dir);

}  // namespace gatefold
