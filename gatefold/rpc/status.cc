#include "gatefold/rpc/status.h"

#include <algorithm>
#include <string>

#include "gatefold/base/errors.h"
#include "gatefold/base/utf8.h"
#include "gatefold/rpc/proto_time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatefold {
namespace {

constexpr size_t kMaxMessageText = 1024;
// All of google.rpc.Status, which repeats the message; base64 makes a third more of it.
constexpr size_t kMaxDetailBytes = 4096;
// No peer makes us wait longer than this.
constexpr absl::Duration kMaxRetryDelay = absl::Hours(1);
constexpr char kTypePrefix[] = "type.googleapis.com/";

// At most `max` bytes of `text`, not ending inside a UTF-8 character.
std::string Cut(absl::string_view text, size_t max) {
  if (text.size() <= max) return std::string(text);
  while (max > 0 && (static_cast<unsigned char>(text[max]) & 0xc0) == 0x80) --max;
  return std::string(text.substr(0, max));
}

template <typename Detail>
void AddDetail(const Detail& detail, google::rpc::Status* status) {
  google::protobuf::Any* any = status->add_details();
  any->set_type_url(kTypePrefix + detail.GetTypeName());
  detail.SerializeToString(any->mutable_value());
  if (status->ByteSizeLong() > kMaxDetailBytes) status->mutable_details()->RemoveLast();
}

template <typename Detail>
bool Unpack(const google::protobuf::Any& any, Detail* detail) {
  const std::string& url = any.type_url();
  const size_t slash = url.rfind('/');
  return slash != std::string::npos &&
         url.compare(slash + 1, std::string::npos, Detail::descriptor()->full_name()) == 0 &&
         detail->ParseFromString(any.value());
}

ErrorDetails ReadDetails(const google::rpc::Status& status) {
  ErrorDetails details;
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  google::rpc::BadRequest bad;
  for (const google::protobuf::Any& any : status.details()) {
    if (Unpack(any, &info)) {
      details.reason = info.reason();
      for (const auto& [key, value] : info.metadata()) details.metadata.emplace_back(key, value);
      std::sort(details.metadata.begin(), details.metadata.end());
    } else if (Unpack(any, &retry)) {
      details.retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                            absl::Nanoseconds(retry.retry_delay().nanos());
      details.retry_delay = std::clamp(details.retry_delay, absl::ZeroDuration(), kMaxRetryDelay);
    } else if (Unpack(any, &bad)) {
      for (const auto& violation : bad.field_violations()) {
        details.violations.push_back({violation.field(), violation.description()});
      }
    }
  }
  return details;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message = ValidUtf8(Cut(status.message(), kMaxMessageText));
  const ErrorDetails details = GetErrorDetails(status);

  google::rpc::Status proto;
  proto.set_code(code);
  proto.set_message(message);
  if (!details.reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(ValidUtf8(details.reason));
    info.set_domain(kErrorDomain);
    for (const auto& [key, value] : details.metadata) {
      (*info.mutable_metadata())[ValidUtf8(key)] = ValidUtf8(Cut(value, kMaxMessageText));
    }
    AddDetail(info, &proto);
  }
  if (details.retry_delay > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(details.retry_delay);
    AddDetail(retry, &proto);
  }
  if (!details.violations.empty()) {
    google::rpc::BadRequest bad;
    for (const FieldViolation& violation : details.violations) {
      auto* added = bad.add_field_violations();
      added->set_field(ValidUtf8(Cut(violation.field, kMaxMessageText)));
      added->set_description(ValidUtf8(Cut(violation.description, kMaxMessageText)));
    }
    AddDetail(bad, &proto);
  }
  if (proto.details().empty()) return grpc::Status(code, message);
  return grpc::Status(code, message, proto.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = status.error_code();
  absl::Status result(
      code >= 1 && code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
      status.error_message());
  google::rpc::Status proto;
  if (!status.error_details().empty() && proto.ParseFromString(status.error_details())) {
    SetErrorDetails(ReadDetails(proto), &result);
  }
  return result;
}

}  // namespace gatefold
