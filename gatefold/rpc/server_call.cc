#include "gatefold/rpc/server_call.h"

#include <grpc/grpc_security_constants.h>
#include <grpc/support/time.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/rpc/status.h"

namespace gatefold {
namespace {

absl::Time ToTime(gpr_timespec deadline) {
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
    return absl::InfiniteFuture();
  }
  deadline = gpr_convert_clock_type(deadline, GPR_CLOCK_REALTIME);
  return absl::FromUnixSeconds(deadline.tv_sec) + absl::Nanoseconds(deadline.tv_nsec);
}

std::vector<std::string> PeerNames(const grpc::AuthContext& peer) {
  std::vector<std::string> names;
  if (!peer.IsPeerAuthenticated()) return names;
  for (const grpc::string_ref& name : peer.FindPropertyValues(GRPC_X509_SAN_PROPERTY_NAME)) {
    names.emplace_back(name.data(), name.size());
  }
  return names;
}

}  // namespace

void ServerCall::Read() {
  pending_.fetch_add(1);
  stream_.Read(&incoming_, &read_tag_);
}

void ServerCall::Write(const grpc::ByteBuffer& message) {
  pending_.fetch_add(1);
  stream_.Write(message, &write_tag_);
}

void ServerCall::WriteAndFinish(const grpc::ByteBuffer& message) {
  stream_.WriteAndFinish(message, grpc::WriteOptions(), grpc::Status::OK, &finish_tag_);
}

void ServerCall::Finish(const absl::Status& status) {
  code_ = status.code();
  stream_.Finish(ToGrpcStatus(status), &finish_tag_);
}

void ServerCall::Accepted() {
  host_->RequestCall();
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const auto& [key, value] : grpc_context_.client_metadata()) {
    metadata.emplace_back(std::string(key.data(), key.size()),
                          std::string(value.data(), value.size()));
  }
  context_ =
      std::make_shared<CallContext>(grpc_context_.method(), grpc_context_.peer(), absl::Now(),
                                    ToTime(grpc_context_.raw_deadline()), std::move(metadata));
  context_->set_peer_names(PeerNames(*grpc_context_.auth_context()));
  ServerMethod* const method = host_->FindMethod(grpc_context_.method());
  method_name_ = method == nullptr ? "other" : absl::string_view(context_->method());
  if (host_->TooManyCalls()) return Finish(QueueFull(absl::Seconds(1)));
  if (const absl::Status allowed = host_->Authorize(context_.get()); !allowed.ok()) {
    Finish(allowed);
  } else if (method == nullptr) {
    Finish(absl::UnimplementedError(absl::StrCat("unknown method ", grpc_context_.method())));
  } else {
    observer_ = method->Accept(this, context_);
    host_->SetObserver(this, observer_);
  }
}

void ServerCall::Handle(Operation operation, bool ok) {
  switch (operation) {
    case Operation::kAccept:
      if (ok) {
        Accepted();
      } else {
        host_->Delete(this);  // the server ends; a call that never was gets no done tag
      }
      return;
    case Operation::kRead: {
      grpc::ByteBuffer message;
      message.Swap(&incoming_);
      observer_->OnRead(ok, std::move(message));
      break;
    }
    case Operation::kWrite:
      observer_->OnWritten(ok);
      break;
    case Operation::kDone:
      if (grpc_context_.IsCancelled()) {
        context_->Cancelled();
        if (observer_ != nullptr) observer_->OnCancelled();
      }
      break;
    case Operation::kFinish:
      break;
  }
  if (pending_.fetch_sub(1) != 1) return;
  const CallRecord record = Record();
  context_->Ended();
  if (observer_ != nullptr) observer_->OnReleased();
  host_->Report(record);
  host_->Delete(this);
}

CallRecord ServerCall::Record() const {
  const absl::Time now = absl::Now();
  CallRecord record{method_name_, code_.load(), now - context_->received()};
  if (context_->cancelled()) {
    record.code = now >= context_->deadline() ? absl::StatusCode::kDeadlineExceeded
                                              : absl::StatusCode::kCancelled;
  }
  return record;
}

}  // namespace gatefold
