#pragma once

// The only place where absl::Status and grpc::Status meet. Details (gatefold/base/errors.h) travel
// as google.rpc ErrorInfo, RetryInfo and BadRequest in the grpc-status-details-bin trailer.

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace gatefold {

// ErrorInfo.domain of every error of ours.
inline constexpr char kErrorDomain[] = "gatefold.dev";

// Trailers have a limit of 8 KiB in gRPC, and past it the caller sees neither message nor code: so
// messages are cut at 1 KiB and details that would not fit are left out, field violations first.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Unknown details and details that cannot be read are left out, the code and message never.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace gatefold
