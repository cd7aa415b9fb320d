#pragma once

// What both ends of FetchExpert (expert.proto) agree on.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "expert-service/expert_selection.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/model/expert_catalog.h"
#include "gatefold/model/expert_layout.h"

namespace gatefold {

inline constexpr char kFetchMethod[] = "/gatefold.internal.v1.ExpertService/FetchExpert";

// Bytes of an image in one message: what is sent, and what is taken at most. Small, since the
// thread that answers routers writes them to the network, too.
inline constexpr size_t kSentPieceBytes = size_t{256} << 10;
inline constexpr size_t kMaxPieceBytes = size_t{1} << 20;
// Of a whole message; no piece and no header comes near it. A longer one is not even received.
inline constexpr int kMaxFetchMessageBytes = 2 << 20;

// A transfer that takes longer is given up by both ends: half a minute, and a second for each MiB.
inline absl::Duration TransferLimit(uint64_t bytes) {
  return absl::Seconds(30) + absl::Seconds(static_cast<double>(bytes >> 20));
}

internal::v1::FetchExpertRequest MakeFetchRequest(const ExpertCatalog& catalog, ExpertId id);
// FailedPrecondition: it speaks another wire version or means another model. InvalidArgument: there
// is no such expert.
absl::Status CheckFetchRequest(const internal::v1::FetchExpertRequest& request,
                               const ExpertCatalog& catalog);

internal::v1::FetchExpertResponse MakeFetchHeader(const ExpertCatalog& catalog,
                                                  const ExpertLayout& layout);
// FailedPrecondition as above. InvalidArgument: what is going to come is not what the model has.
absl::Status CheckFetchHeader(const internal::v1::FetchExpertResponse& header,
                              const ExpertCatalog& catalog, const ExpertLayout& layout);

}  // namespace gatefold
