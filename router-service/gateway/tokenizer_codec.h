#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "router-service/gateway/text_codec.h"

namespace gatefold {

// Writes a conversation out as the text that the model expects, up to where its answer begins.
// Errors: InvalidArgument with what the template says against it.
using ChatRenderer =
    std::function<absl::StatusOr<std::string>(const std::vector<TextCodec::ChatMessage>& messages)>;

// `renderer` may be null: the model has no chat template.
std::shared_ptr<const TextCodec> MakeTokenizerCodec(std::unique_ptr<Tokenizer> tokenizer,
                                                    ChatRenderer renderer);

// The codec of a model folder's tokenizer. Null if the folder has none: such a model serves token
// ids alone. Errors: those of Tokenizer::Load for one that is there and cannot be read.
absl::StatusOr<std::shared_ptr<const TextCodec>> LoadTokenizerCodec(const std::string& model_dir);

}  // namespace gatefold
