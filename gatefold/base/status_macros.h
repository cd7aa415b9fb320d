#pragma once

// Early return for absl::Status and absl::StatusOr.
//   GF_RETURN_IF_ERROR(expr);
//   GF_ASSIGN_OR_RETURN(auto value, expr);

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace gatefold {

// `status` with `prefix: ` before its message; code and details are kept. OK stays OK.
inline absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& detail) {
    annotated.SetPayload(type_url, detail);
  });
  return annotated;
}

}  // namespace gatefold

#define GF_STATUS_CONCAT_INNER(a, b) a##b
#define GF_STATUS_CONCAT(a, b) GF_STATUS_CONCAT_INNER(a, b)

#define GF_RETURN_IF_ERROR(expr)                                                 \
  do {                                                                           \
    if (::absl::Status gf_status_ = (expr); !gf_status_.ok()) return gf_status_; \
  } while (false)

#define GF_ASSIGN_OR_RETURN(lhs, expr) \
  GF_ASSIGN_OR_RETURN_INNER(GF_STATUS_CONCAT(gf_status_or_, __LINE__), lhs, expr)

#define GF_ASSIGN_OR_RETURN_INNER(var, lhs, expr) \
  auto var = (expr);                              \
  if (!var.ok()) return var.status();             \
  lhs = *std::move(var)
