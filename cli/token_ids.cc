#include "cli/token_ids.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace gatefold::cli {

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (absl::ConsumePrefix(&text, "[") != absl::ConsumeSuffix(&text, "]")) {
    return absl::InvalidArgumentError("has a bracket that is not closed or not opened");
  }
  std::vector<int32_t> ids;
  if (absl::StripAsciiWhitespace(text).empty()) return ids;
  for (absl::string_view item : absl::StrSplit(text, ',')) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(item, &id) || id < 0) {
      return absl::InvalidArgumentError(absl::StrCat("must be whole numbers, as 1,5,9; item ",
                                                     ids.size() + 1, " is \"", item.substr(0, 40),
                                                     "\""));
    }
    ids.push_back(id);
  }
  return ids;
}

}  // namespace gatefold::cli
