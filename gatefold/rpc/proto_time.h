#pragma once

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace gatefold {

google::protobuf::Duration ToProto(absl::Duration span);  // finite
google::protobuf::Timestamp ToProto(absl::Time time);     // finite

}  // namespace gatefold
