#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

struct evp_md_ctx_st;

namespace gatefold {

// SHA-256 over a sequence of values. Numbers and strings go in with a fixed width or their length,
// so that two different sequences never feed it the same bytes.
class Sha256 {
 public:
  Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  ~Sha256();

  void AddBytes(const void* data, size_t bytes);
  void AddNumber(uint64_t value);
  void AddString(absl::string_view text);

  // 64 hex digits. Once.
  std::string FinishHex();

 private:
  evp_md_ctx_st* context_;
};

}  // namespace gatefold
