#include "gatefold/rpc/method_name.h"

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {

std::string MethodPath(absl::string_view service, absl::string_view method) {
  return absl::StrCat("/", service, "/", method);
}

const google::protobuf::MethodDescriptor& FindMethod(absl::string_view service,
                                                     absl::string_view method) {
  const google::protobuf::MethodDescriptor* found =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
          absl::StrCat(service, ".", method));
  GF_CHECK(found != nullptr);
  return *found;
}

}  // namespace gatefold
