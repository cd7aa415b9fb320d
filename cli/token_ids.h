#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold::cli {

// "1,5,9", with spaces or without; brackets around it as in a JSON list are fine. Empty: no ids.
// InvalidArgument names the item that is none, as a number: other lists are read with this, too.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(absl::string_view text);

}  // namespace gatefold::cli
