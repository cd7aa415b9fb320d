#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace gatefold {

// One page of a list of `n_items` in a stable order (AIP-158): items [begin, end).
struct Page {
  int begin = 0;
  int end = 0;
  std::string next_page_token;  // empty: the last page
};

// page_size 0: 100; at most 1000 are given. Errors: InvalidArgument for a token we did not make.
absl::StatusOr<Page> FindPage(int n_items, uint32_t page_size, const std::string& page_token);

}  // namespace gatefold
