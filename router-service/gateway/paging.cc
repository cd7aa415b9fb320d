#include "router-service/gateway/paging.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"

namespace gatefold {

absl::StatusOr<Page> FindPage(int n_items, uint32_t page_size, const std::string& page_token) {
  Page page;
  if (!page_token.empty() && (!absl::SimpleAtoi(page_token, &page.begin) || page.begin < 0)) {
    return BadField("page_token", "is not one that an earlier page gave");
  }
  // The list may have become shorter since the token was made.
  page.begin = std::min(page.begin, n_items);
  const int size = page_size == 0 ? 100 : static_cast<int>(std::min<uint32_t>(page_size, 1000));
  page.end = std::min(n_items, page.begin + size);
  if (page.end < n_items) page.next_page_token = absl::StrCat(page.end);
  return page;
}

}  // namespace gatefold
