#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace gatefold {

struct JsonLimits {
  size_t max_bytes = size_t{16} << 20;
  size_t max_depth = 64;
  size_t max_values = 2'000'000;  // bounds the memory of the parsed document, some 100 bytes each
};

// Parses one JSON document. InvalidArgument for what JSON forbids, text that is not UTF-8 or has a
// NUL byte, and a key that appears twice in one object: parsers differ in which of the two counts,
// so a file that has both can mean two things. ResourceExhausted past a limit.
// `what` names the document in messages. Never throws.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text, absl::string_view what,
                                               const JsonLimits& limits = {});

// Text from a file for an error message: escaped, cut at 80 bytes.
std::string PrintableName(absl::string_view name);
// The same for a value: as JSON writes it in ASCII.
std::string PrintableValue(const nlohmann::json& value);

}  // namespace gatefold
