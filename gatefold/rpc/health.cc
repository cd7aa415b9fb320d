#include "gatefold/rpc/health.h"

#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/rpc/async_service.h"
#include "grpc/health/v1/health.pb.h"

namespace gatefold {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ServingStatus = HealthCheckResponse::ServingStatus;

constexpr char kService[] = "grpc.health.v1.Health";
// Of each method. They are open to everybody, and must not take all the calls that a server may
// have open.
constexpr int kMaxOpenCalls = 256;

}  // namespace

class HealthService::Impl : public std::enable_shared_from_this<HealthService::Impl> {
 public:
  void Register(RpcServer* server);
  void Set(absl::string_view service, ServingStatus status);
  void SetAllNotServing();

 private:
  struct Watcher {
    std::string service;
    std::shared_ptr<ServerStream<HealthCheckResponse>> stream;
    ServingStatus sent = HealthCheckResponse::UNKNOWN;
  };
  using WatcherRef = std::list<Watcher>::iterator;

  absl::StatusOr<HealthCheckResponse> Check(const HealthCheckRequest& request);
  void Watch(const std::shared_ptr<CallContext>& call, const HealthCheckRequest& request,
             std::shared_ptr<ServerStream<HealthCheckResponse>> stream);
  ServingStatus StatusOf(const std::string& service) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Tells watchers what they have not been told; one whose client reads too slowly is told later.
  void Notify(Watcher* watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NotifyAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  absl::flat_hash_map<std::string, ServingStatus> statuses_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::list<Watcher> watchers_ ABSL_GUARDED_BY(mu_);
};

void HealthService::Impl::Register(RpcServer* server) {
  const auto self = shared_from_this();
  MethodOptions options;
  options.max_open_calls = kMaxOpenCalls;
  AddUnary<HealthCheckRequest, HealthCheckResponse>(
      server, kService, "Check",
      [self](std::shared_ptr<CallContext>, const HealthCheckRequest& request,
             Respond<HealthCheckResponse> respond) { respond(self->Check(request)); },
      options);
  options.max_queued_messages = 4;
  options.end_at_shutdown = true;
  AddServerStreaming<HealthCheckRequest, HealthCheckResponse>(
      server, kService, "Watch",
      [self](std::shared_ptr<CallContext> call, const HealthCheckRequest& request,
             std::shared_ptr<ServerStream<HealthCheckResponse>> stream) {
        self->Watch(call, request, std::move(stream));
      },
      options);
}

void HealthService::Impl::Set(absl::string_view service, ServingStatus status) {
  absl::MutexLock lock(&mu_);
  statuses_[std::string(service)] = ended_ ? HealthCheckResponse::NOT_SERVING : status;
  NotifyAll();
}

void HealthService::Impl::SetAllNotServing() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
  for (auto& [service, status] : statuses_) status = HealthCheckResponse::NOT_SERVING;
  NotifyAll();
}

absl::StatusOr<HealthCheckResponse> HealthService::Impl::Check(const HealthCheckRequest& request) {
  absl::MutexLock lock(&mu_);
  HealthCheckResponse response;
  response.set_status(StatusOf(request.service()));
  if (response.status() == HealthCheckResponse::SERVICE_UNKNOWN) {
    return absl::NotFoundError(absl::StrCat("no service named \"", request.service(), "\""));
  }
  return response;
}

void HealthService::Impl::Watch(const std::shared_ptr<CallContext>& call,
                                const HealthCheckRequest& request,
                                std::shared_ptr<ServerStream<HealthCheckResponse>> stream) {
  WatcherRef watcher;
  {
    absl::MutexLock lock(&mu_);
    watchers_.push_back({request.service(), stream});
    watcher = std::prev(watchers_.end());
    Notify(&*watcher);
  }
  // Weak: the call's own callbacks must not keep it from ending. Both run on the poll thread, as
  // this does, and none of them after the call has ended, so `watcher` is good.
  const std::weak_ptr<Impl> weak = weak_from_this();
  stream->OnWritable([weak, watcher] {
    const std::shared_ptr<Impl> self = weak.lock();
    if (self == nullptr) return;
    absl::MutexLock lock(&self->mu_);
    self->Notify(&*watcher);
  });
  call->OnCancel([weak, watcher] {
    const std::shared_ptr<Impl> self = weak.lock();
    if (self == nullptr) return;
    std::list<Watcher> gone;  // destroyed outside of the lock
    absl::MutexLock lock(&self->mu_);
    gone.splice(gone.begin(), self->watchers_, watcher);
  });
}

ServingStatus HealthService::Impl::StatusOf(const std::string& service) const {
  const auto found = statuses_.find(service);
  return found == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : found->second;
}

void HealthService::Impl::Notify(Watcher* watcher) {
  const ServingStatus status = StatusOf(watcher->service);
  if (status == watcher->sent) return;
  HealthCheckResponse response;
  response.set_status(status);
  if (watcher->stream->Write(response) == StreamWrite::kQueued) watcher->sent = status;
}

void HealthService::Impl::NotifyAll() {
  for (Watcher& watcher : watchers_) Notify(&watcher);
}

HealthService::HealthService() : impl_(std::make_shared<Impl>()) {}
HealthService::~HealthService() = default;
void HealthService::Register(RpcServer* server) { impl_->Register(server); }
void HealthService::SetServing(absl::string_view service, bool serving) {
  impl_->Set(service, serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
}
void HealthService::SetAllNotServing() { impl_->SetAllNotServing(); }

}  // namespace gatefold
