#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gatefold/checkpoint/safetensors.h"

namespace gatefold {

// Copies a model of one safetensors file from the folder `model` to `to`, which has no model yet,
// with the weights of its experts as `rewrite` leaves their bytes: one call per matrix, of the same
// size afterwards. NotFound for a model without experts.
absl::Status CopyWithRewrittenExperts(
    const std::string& model, const std::string& to,
    const std::function<void(const SafetensorsTensor& tensor, std::vector<char>* bytes)>& rewrite);

}  // namespace gatefold
