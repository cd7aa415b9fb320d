#include "cli/plan/weight_format.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gatefold::cli {
namespace {

constexpr WeightFormat kFormats[] = {
    {"float32", 4, false, false},          {"bfloat16", 2, false, false},
    {"float16", 2, false, false},          {"fp8", 1 + 4.0 / (128 * 128), true, false},
    {"int8", 1 + 2.0 / 32, true, false},   {"int4", 0.5 + 2.0 / 32, true, false},
    {"mxfp4", 0.5 + 1.0 / 32, true, true},
};

}  // namespace

absl::StatusOr<WeightFormat> FindWeightFormat(absl::string_view name) {
  std::string names;
  for (const WeightFormat& format : kFormats) {
    if (name == format.name) return format;
    absl::StrAppend(&names, names.empty() ? "" : ", ", format.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is no known format of weights; those are ", names));
}

}  // namespace gatefold::cli
