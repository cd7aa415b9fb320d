#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gatefold/checkpoint/safetensors.h"

namespace gatefold {

// The JSON of a safetensors header into `header`: tensors as written, in order of appearance, not
// yet checked for sizes, overlaps or names that appear twice. Part of ParseSafetensors.
absl::Status ReadSafetensorsHeader(absl::string_view json, SafetensorsHeader* header);

}  // namespace gatefold
