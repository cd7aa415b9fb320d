#include "gatefold/rpc/server.h"

#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <pthread.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/acceptor.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/server_call.h"

namespace gatefold {
namespace {

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(duration), 1, std::numeric_limits<int>::max()));
}

void SetArguments(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(std::min(options.max_message_bytes, options.max_request_bytes));
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  builder->SetResourceQuota(grpc::ResourceQuota("server").Resize(options.max_unread_bytes));
  // A small compressed message could unpack to more memory than there is.
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder->SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  // Of TLS, too: gRPC would wait two minutes for somebody who connects and says nothing.
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 20000);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  if (!options.strict_pings) builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  if (options.max_connection_age != absl::InfiniteDuration()) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                Milliseconds(options.max_connection_age));
  }
}

}  // namespace

absl::Status ServerOptions::Validate() const {
  for (const std::string& address : addresses) GF_RETURN_IF_ERROR(ParseAddress(address).status());
  if (max_calls < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_calls is ", max_calls, ", want at least 1"));
  }
  if (max_message_bytes < 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_message_bytes is ", max_message_bytes, ", want at least 1024"));
  }
  if ((unix_socket_mode & ~0777) != 0) {
    return absl::InvalidArgumentError("unix_socket_mode has bits outside of 0777");
  }
  return absl::OkStatus();
}

class RpcServer::Impl final : public CallHost {
 public:
  explicit Impl(ServerOptions options)
      : options_(std::move(options)),
        acceptor_(/*keeps_most=*/!options_.for_probes, options_.keepalive_timeout) {}
  ~Impl() override;

  void AddMethod(absl::string_view name, std::unique_ptr<ServerMethod> method);
  absl::Status Start();
  void Shutdown(absl::Duration grace);

  int port(size_t index) const { return bound_.at(index).port; }
  std::string address(size_t index) const { return bound_.at(index).ToString(); }
  std::shared_ptr<grpc::Channel> InProcessChannel();
  std::vector<std::string> ServiceNames() const;

 private:
  void RequestCall() override;
  ServerMethod* FindMethod(const std::string& name) const override;
  bool TooManyCalls() override;
  absl::Status Authorize(CallContext* call) override;
  void SetObserver(ServerCall* call, std::shared_ptr<CallObserver> observer) override;
  void Report(const CallRecord& record) override;
  void Hold(ServerCall* call, int64_t bytes) override;
  void Delete(ServerCall* call) override;

  absl::Status Listen(grpc::ServerBuilder* builder);
  void Poll();

  const ServerOptions options_;
  absl::flat_hash_map<std::string, std::unique_ptr<ServerMethod>> methods_;
  std::vector<Address> bound_;
  Acceptor acceptor_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;  // gone before its queue
  std::thread poll_thread_;

  absl::Mutex mu_;
  bool accepting_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // Every ServerCall there is; no observer: not accepted yet, or refused.
  absl::flat_hash_map<ServerCall*, std::shared_ptr<CallObserver>> calls_ ABSL_GUARDED_BY(mu_);
  // Of a call with answers that wait. None: nothing waits, or the call was cancelled for it.
  struct Held {
    int64_t bytes = 0;
    absl::Time since;  // the caller has taken none of it
  };
  absl::flat_hash_map<ServerCall*, Held> held_ ABSL_GUARDED_BY(mu_);
  int64_t held_bytes_ ABSL_GUARDED_BY(mu_) = 0;

  void Forget(absl::flat_hash_map<ServerCall*, Held>::iterator held)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    held_bytes_ -= held->second.bytes;
    held_.erase(held);
  }
};

RpcServer::Impl::~Impl() {
  Shutdown(absl::ZeroDuration());
  if (queue_ == nullptr || server_ != nullptr) return;
  queue_->Shutdown();  // it never got a server
  Poll();
}

void RpcServer::Impl::AddMethod(absl::string_view name, std::unique_ptr<ServerMethod> method) {
  GF_CHECK(server_ == nullptr);
  const bool added = methods_.emplace(std::string(name), std::move(method)).second;
  GF_CHECK(added);
}

// A unix socket must not be open to others even for the moment between bind and chmod, so the mask
// of the whole process is narrowed for as long as binding takes.
absl::Status RpcServer::Impl::Listen(grpc::ServerBuilder* builder) {
  const auto mode = static_cast<mode_t>(options_.unix_socket_mode);
  for (const std::string& text : options_.addresses) {
    GF_ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    GF_RETURN_IF_ERROR(RemoveStaleSocket(address));
    std::shared_ptr<grpc::experimental::ExternalConnectionAcceptor> grpc_side =
        builder->experimental().AddExternalConnectionAcceptor(
            grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
            options_.security.ServerCredentials(address));
    const bool has_socket_file = address.kind == Address::Kind::kUnix;
    const mode_t old_mask = has_socket_file ? umask(~mode & 0777) : 0;
    absl::StatusOr<Address> bound =
        acceptor_.Listen(address, [grpc_side = std::move(grpc_side)](int fd) {
          grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
          connection.fd = fd;
          grpc_side->HandleNewConnection(&connection);
        });
    if (has_socket_file) umask(old_mask);
    GF_RETURN_IF_ERROR(bound.status());
    if (has_socket_file) chmod(address.path.c_str(), mode);
    bound_.push_back(*std::move(bound));
  }
  return absl::OkStatus();
}

absl::Status RpcServer::Impl::Start() {
  GF_CHECK(queue_ == nullptr);
  GF_RETURN_IF_ERROR(options_.Validate());
  grpc::ServerBuilder builder;
  SetArguments(options_, &builder);
  builder.RegisterAsyncGenericService(&service_);
  queue_ = builder.AddCompletionQueue();
  GF_RETURN_IF_ERROR(Listen(&builder));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return absl::InternalError("gRPC does not start");
  {
    absl::MutexLock lock(&mu_);
    accepting_ = true;
  }
  RequestCall();
  poll_thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "rpc-poll");
    Poll();
  });
  acceptor_.Start();
  return absl::OkStatus();
}

void RpcServer::Impl::Poll() {
  void* tag = nullptr;
  bool ok = false;
  while (WaitForEvent(queue_.get(), options_.wait, absl::InfiniteFuture(), &tag, &ok) ==
         WaitResult::kEvent) {
    const auto* event = static_cast<ServerCall::Tag*>(tag);
    event->call->Handle(event->operation, ok);
  }
}

void RpcServer::Impl::RequestCall() {
  absl::MutexLock lock(&mu_);
  if (!accepting_) return;
  auto* call = new ServerCall(this);
  calls_.emplace(call, nullptr);
  call->grpc_context_.AsyncNotifyWhenDone(&call->done_tag_);
  service_.RequestCall(&call->grpc_context_, &call->stream_, queue_.get(), queue_.get(),
                       &call->accept_tag_);
}

ServerMethod* RpcServer::Impl::FindMethod(const std::string& name) const {
  const auto found = methods_.find(name);
  return found == methods_.end() ? nullptr : found->second.get();
}

bool RpcServer::Impl::TooManyCalls() {
  absl::MutexLock lock(&mu_);
  // One of them is the call that gRPC was asked for and has not delivered.
  return calls_.size() > static_cast<size_t>(options_.max_calls) + 1;
}

absl::Status RpcServer::Impl::Authorize(CallContext* call) {
  return options_.authorize ? options_.authorize(call) : absl::OkStatus();
}

void RpcServer::Impl::SetObserver(ServerCall* call, std::shared_ptr<CallObserver> observer) {
  bool ending;
  {
    absl::MutexLock lock(&mu_);
    calls_[call] = observer;
    ending = !accepting_;
  }
  if (ending) observer->OnShutdown();  // Shutdown did not see it
}

void RpcServer::Impl::Hold(ServerCall* call, int64_t bytes) {
  absl::MutexLock lock(&mu_);
  if (bytes < 0 && !held_.contains(call)) return;
  const auto own = held_.try_emplace(call).first;
  if (bytes < 0 || own->second.bytes == 0) own->second.since = absl::Now();
  own->second.bytes += bytes;
  held_bytes_ += bytes;
  if (own->second.bytes == 0) return Forget(own);
  while (held_bytes_ > options_.max_untaken_bytes && held_.size() > 1) {
    const auto stalest = std::min_element(
        held_.begin(), held_.end(),
        [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
    // Under the lock, so that it is not deleted meanwhile. It runs no code of ours.
    stalest->first->grpc_context_.TryCancel();
    Forget(stalest);
  }
}

void RpcServer::Impl::Delete(ServerCall* call) {
  {
    absl::MutexLock lock(&mu_);
    if (const auto held = held_.find(call); held != held_.end()) Forget(held);
  }
  delete call;
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
}

void RpcServer::Impl::Report(const CallRecord& record) {
  if (options_.on_call_done) options_.on_call_done(record);
}

void RpcServer::Impl::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  std::vector<std::shared_ptr<CallObserver>> observers;
  {
    absl::MutexLock lock(&mu_);
    if (stopped_) return;
    stopped_ = true;
    accepting_ = false;
    for (const auto& [call, observer] : calls_) {
      if (observer != nullptr) observers.push_back(observer);
    }
  }
  for (const auto& observer : observers) observer->OnShutdown();
  observers.clear();
  acceptor_.Stop();
  // Order: gRPC refuses new calls and cancels, after the grace, what is left; then every method has
  // finished its calls (a worker may still be computing); only then may the queue end, for starting
  // an operation on a queue that was shut down is fatal.
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](decltype(calls_)* calls) { return calls->empty(); }, &calls_));
  }
  queue_->Shutdown();
  poll_thread_.join();
}

std::shared_ptr<grpc::Channel> RpcServer::Impl::InProcessChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options_.max_message_bytes);
  arguments.SetMaxSendMessageSize(options_.max_message_bytes);
  return server_->InProcessChannel(arguments);
}

std::vector<std::string> RpcServer::Impl::ServiceNames() const {
  std::vector<std::string> names;
  for (const auto& [name, method] : methods_) {
    names.push_back(name.substr(1, name.rfind('/') - 1));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

RpcServer::RpcServer(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
RpcServer::~RpcServer() = default;

void RpcServer::AddMethod(absl::string_view name, std::unique_ptr<ServerMethod> method) {
  impl_->AddMethod(name, std::move(method));
}
absl::Status RpcServer::Start() { return impl_->Start(); }
int RpcServer::port(size_t index) const { return impl_->port(index); }
std::string RpcServer::address(size_t index) const { return impl_->address(index); }
std::shared_ptr<grpc::Channel> RpcServer::InProcessChannel() { return impl_->InProcessChannel(); }
std::vector<std::string> RpcServer::ServiceNames() const { return impl_->ServiceNames(); }
void RpcServer::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace gatefold
