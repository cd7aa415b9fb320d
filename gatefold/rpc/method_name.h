#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace gatefold {

// "/package.Service/Method", as gRPC names it.
std::string MethodPath(absl::string_view service, absl::string_view method);

// From the program's own descriptors. Ends the process if there is none: the name stands in our own
// code.
const google::protobuf::MethodDescriptor& FindMethod(absl::string_view service,
                                                     absl::string_view method);

}  // namespace gatefold
