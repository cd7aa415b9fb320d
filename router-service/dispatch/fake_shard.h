#pragma once

// A shard for tests: its expert e answers a row with (e + 1) times the row, as late and as wrongly
// as the test wants it.

#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_server.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

class FakeShard final : public StreamHandler {
 public:
  FakeShard(std::string name, std::set<int> experts, int n_layers, uint64_t numerics_class = 1)
      : name_(std::move(name)),
        n_layers_(n_layers),
        numerics_class_(numerics_class),
        experts_(std::move(experts)) {
    ServerOptions options;
    options.addresses = {absl::StrCat("unix-abstract:gatefold-", getpid(), "-", name_)};
    server_ = std::make_unique<RpcServer>(options);
    AddUnary<internal::v1::ExpertServiceDescribeRequest,
             internal::v1::ExpertServiceDescribeResponse>(
        server_.get(), kService, "Describe",
        [this](std::shared_ptr<CallContext>, const internal::v1::ExpertServiceDescribeRequest&,
               Respond<internal::v1::ExpertServiceDescribeResponse> respond) {
          internal::v1::ExpertServiceDescribeResponse response;
          *response.mutable_shard() = Describe();
          respond(response);
        });
    AddServerStreaming<internal::v1::WatchRequest, internal::v1::WatchResponse>(
        server_.get(), kService, "Watch",
        [this](std::shared_ptr<CallContext>, const internal::v1::WatchRequest&,
               std::shared_ptr<ServerStream<internal::v1::WatchResponse>> stream) {
          absl::MutexLock lock(&mu_);
          watcher_ = std::move(stream);
        });
    AddUnary<internal::v1::AssignRequest, internal::v1::AssignResponse>(
        server_.get(), kService, "Assign",
        [this](std::shared_ptr<CallContext>, const internal::v1::AssignRequest& request,
               Respond<internal::v1::AssignResponse> respond) {
          absl::MutexLock lock(&mu_);
          assigned_.push_back(request);
          respond(internal::v1::AssignResponse());
        });
    StreamOptions streams;
    streams.n_workers = 2;  // one may be held
    AddStream(server_.get(), kService, "Run", this, streams);
    GF_CHECK(server_->Start().ok());
  }
  ~FakeShard() override {
    Release();
    Die();
  }

  std::string address() const { return server_->address(); }

  // Waits for a watcher, and tells it.
  void SetExperts(std::set<int> experts) {
    absl::MutexLock lock(&mu_);
    const auto watched = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return watcher_ != nullptr; };
    GF_CHECK(mu_.AwaitWithTimeout(absl::Condition(&watched), absl::Seconds(20)));
    experts_ = std::move(experts);
    internal::v1::WatchResponse now;
    *now.mutable_shard() = DescribeLocked();
    watcher_->Write(now);
  }
  // Calls stay unanswered until Release(). It still describes itself.
  void Hold() {
    absl::MutexLock lock(&mu_);
    held_ = true;
  }
  // Only streams that are open now; new ones are answered.
  void HoldOpenStreams() {
    absl::MutexLock lock(&mu_);
    n_held_streams_ = n_streams_;
  }
  void Release() {
    absl::MutexLock lock(&mu_);
    held_ = false;
    n_held_streams_ = 0;
  }
  void AwaitCalls(int n) {
    absl::MutexLock lock(&mu_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return n_calls_ >= n; };
    GF_CHECK(mu_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20)));
  }
  std::vector<internal::v1::AssignRequest> AwaitAssigned(size_t n = 1) {
    absl::MutexLock lock(&mu_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return assigned_.size() >= n; };
    GF_CHECK(mu_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20)));
    return assigned_;
  }
  // From now on it describes itself as this says.
  void SetDescription(const std::function<void(internal::v1::ExpertShard*)>& change) {
    absl::MutexLock lock(&mu_);
    change_ = change;
  }
  void Die() { server_->Shutdown(absl::ZeroDuration()); }

  int n_calls() const {
    absl::MutexLock lock(&mu_);
    return n_calls_;
  }
  std::atomic<int> delay_ms{0};   // of each answer
  std::atomic<bool> lies{false};  // one bit of each answer is wrong
  std::atomic<internal::v1::RefusalReason> refusal{internal::v1::REFUSAL_REASON_UNSPECIFIED};

  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>&) override {
    absl::MutexLock lock(&mu_);
    return std::make_unique<Session>(this, n_streams_++);
  }
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer&) override { return grpc::ByteBuffer(); }

 private:
  static constexpr char kService[] = "gatefold.internal.v1.ExpertService";

  class Session final : public StreamSession {
   public:
    Session(FakeShard* shard, int index) : shard_(shard), index_(index) {}
    bool IsSmall(const grpc::ByteBuffer&) const override { return false; }  // it may wait

    absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time) override {
      internal::v1::ExpertServiceRunRequest request;
      FramePayload rows;
      GF_RETURN_IF_ERROR(ReadFrame(frame, &request, &rows));
      shard_->TakeCall(index_);
      internal::v1::ExpertServiceRunResponse response;
      *response.mutable_key() = request.key();
      if (shard_->refusal != internal::v1::REFUSAL_REASON_UNSPECIFIED) {
        response.mutable_refusal()->set_reason(shard_->refusal);
        return WriteMessage(response);
      }
      const int d_model = static_cast<int>(request.d_model());
      std::vector<float> x(request.n_rows() * d_model), y;
      FloatReader(rows, request.dtype()).Read(x.data(), x.size());
      int at = 0;
      for (int i = 0; i < request.experts_size(); ++i) {
        for (uint32_t n = 0; n < request.n_rows_of_expert(i); ++n, ++at) {
          const float* row = &x[request.rows(at) * d_model];
          for (int d = 0; d < d_model; ++d) y.push_back(row[d] * (request.experts(i) + 1.0f));
        }
      }
      if (shard_->lies) y.back() = -y.back();
      response.set_dtype(request.dtype());
      response.set_n_rows(request.rows_size());
      response.set_d_model(d_model);
      GF_ASSIGN_OR_RETURN(PayloadBuffer payload,
                          MakePayload(request.dtype(), request.rows_size(), d_model));
      WriteFloats(request.dtype(), y, 0, &payload);
      return WriteFrame(response, payload);
    }

   private:
    FakeShard* const shard_;
    const int index_;
  };

  void TakeCall(int stream) {
    absl::MutexLock lock(&mu_);
    ++n_calls_;
    const auto released = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !held_ && stream >= n_held_streams_;
    };
    mu_.Await(absl::Condition(&released));
    const auto never = [] { return false; };
    mu_.AwaitWithTimeout(absl::Condition(&never), absl::Milliseconds(delay_ms.load()));
  }

  internal::v1::ExpertShard Describe() const {
    absl::MutexLock lock(&mu_);
    return DescribeLocked();
  }
  internal::v1::ExpertShard DescribeLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    internal::v1::ExpertShard shard;
    shard.mutable_worker()->set_name(name_);
    shard.mutable_worker()->set_incarnation(incarnation_);
    shard.mutable_worker()->set_wire_version(kWireVersion);
    shard.mutable_worker()->set_numerics_class(numerics_class_);
    shard.mutable_worker()->set_isa(absl::StrCat("of ", name_));
    shard.mutable_worker()->set_ready(true);
    for (int layer = 0; layer < n_layers_; ++layer) {
      for (int expert : experts_) {
        internal::v1::ExpertRange* range = shard.add_held();
        range->set_layer(layer);
        range->set_first_expert(expert);
        range->set_n_experts(1);
      }
    }
    if (change_) change_(&shard);
    return shard;
  }

  const std::string name_;
  const int n_layers_;
  const uint64_t numerics_class_;
  const uint64_t incarnation_ = RandomId();
  std::unique_ptr<RpcServer> server_;
  mutable absl::Mutex mu_;
  std::set<int> experts_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<ServerStream<internal::v1::WatchResponse>> watcher_ ABSL_GUARDED_BY(mu_);
  int n_streams_ ABSL_GUARDED_BY(mu_) = 0;
  int n_held_streams_ ABSL_GUARDED_BY(mu_) = 0;
  int n_calls_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<internal::v1::AssignRequest> assigned_ ABSL_GUARDED_BY(mu_);
  std::function<void(internal::v1::ExpertShard*)> change_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
