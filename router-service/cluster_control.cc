#include "router-service/cluster_control.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/stream_client.h"

namespace gatefold {
namespace {

constexpr size_t kMaxWaiting = 16;
constexpr char kDrainExpert[] = "/gatefold.internal.v1.ExpertService/SetDraining";
constexpr char kFlush[] = "/gatefold.internal.v1.AttentionService/FlushPrefixCache";
constexpr size_t kMaxAnswerBytes = size_t{1} << 20;
constexpr char kDrainAttention[] = "/gatefold.internal.v1.AttentionService/SetDraining";

}  // namespace

ClusterControl::ClusterControl(const Options& options, Directory* directory,
                               const DirectoryView* view, ClusterPlanner* planner)
    : options_(options), directory_(directory), view_(view), planner_(planner), thread_([this] {
        Run();
      }) {}

ClusterControl::~ClusterControl() {
  std::deque<std::function<void(absl::Status)>> refused;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    refused.swap(waiting_);
  }
  for (const auto& run : refused) run(absl::UnavailableError("this router is ending"));
  thread_.join();
}

void ClusterControl::Enqueue(std::function<void(absl::Status)> run) {
  {
    absl::MutexLock lock(&mu_);
    if (waiting_.size() < kMaxWaiting && !stopping_) return waiting_.push_back(std::move(run));
  }
  run(absl::ResourceExhaustedError(absl::StrCat(kMaxWaiting, " commands wait already")));
}

void ClusterControl::Run() {
  while (true) {
    std::function<void(absl::Status)> run;
    {
      absl::MutexLock lock(&mu_);
      const auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !waiting_.empty();
      };
      mu_.Await(absl::Condition(&something));
      if (stopping_) return;
      run = std::move(waiting_.front());
      waiting_.pop_front();
    }
    run(absl::OkStatus());
  }
}

void ClusterControl::SetDraining(const std::string& worker, bool draining,
                                 std::function<void(absl::StatusOr<cluster::v1::Worker>)> done) {
  Enqueue([this, worker, draining, done = std::move(done)](const absl::Status& turn) {
    done(turn.ok() ? SetDrainingNow(worker, draining) : turn);
  });
}

void ClusterControl::Rebalance(
    std::function<void(absl::StatusOr<cluster::v1::RebalanceExpertsResponse>)> done) {
  Enqueue([this, done = std::move(done)](const absl::Status& turn) {
    if (!turn.ok()) return done(turn);
    if (planner_ == nullptr) {
      return done(absl::FailedPreconditionError(
          "this router does not plan; ask the one that runs with --planner=on or only"));
    }
    const absl::StatusOr<Plan> plan = planner_->Rebalance(absl::Now() + options_.answer_timeout);
    if (!plan.ok()) return done(plan.status());
    cluster::v1::RebalanceExpertsResponse response;
    response.set_n_loads(plan->n_loads);
    response.set_imbalance(plan->imbalance);
    response.set_n_uncovered(static_cast<uint32_t>(plan->uncovered.size()));
    done(response);
  });
}

absl::StatusOr<ClusterControl::Place> ClusterControl::Find(const std::string& worker) const {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  std::vector<Place> found;
  std::vector<std::string> names;
  for (const bool expert : {true, false}) {
    const std::vector<WorkerEntry>& entries = expert ? table->experts : table->attention;
    for (size_t i = 0; i < entries.size(); ++i) {
      const WorkerEntry& entry = entries[i];
      if (entry.gone) continue;
      const Place place = {expert, static_cast<int>(i), entry.address};
      if (worker == entry.address) return place;
      if (entry.twin) continue;
      if (worker == entry.name()) found.push_back(place);
      names.push_back(entry.name());
    }
  }
  if (found.size() == 1) return found[0];
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no worker \"", worker,
                                            "\"; those there are: ", absl::StrJoin(names, ", ")));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      found.size(), " workers are called \"", worker,
      "\", give an address: ", absl::StrJoin(found, ", ", [](std::string* out, const Place& place) {
        out->append(place.address);
      })));
}

absl::StatusOr<cluster::v1::Worker> ClusterControl::SetDrainingNow(const std::string& worker,
                                                                   bool draining) {
  GF_ASSIGN_OR_RETURN(const Place place, Find(worker));
  // Both services take the same message, and of what they answer nothing is needed.
  internal::v1::ExpertServiceSetDrainingRequest request;
  request.set_draining(draining);
  const absl::Status told = Call(place.address, place.expert ? kDrainExpert : kDrainAttention,
                                 request, /*response=*/nullptr);
  if (!told.ok()) return Annotate(told, worker);
  LogEvent(LogLevel::kInfo, draining ? "worker_drained" : "worker_resumed",
           {{"worker", worker}, {"address", place.address}});
  place.expert ? directory_->SuspectExpert(place.index) : directory_->SuspectAttention(place.index);
  const auto known = [&](const RoutingTable& table) {
    const WorkerEntry& entry = (place.expert ? table.experts : table.attention)[place.index];
    return entry.address != place.address || entry.worker.draining() == draining;
  };
  directory_->Await(known, absl::Now() + options_.answer_timeout);
  const cluster::v1::GetClusterResponse cluster = view_->Snapshot();
  for (const cluster::v1::Worker& now : cluster.workers()) {
    if (now.address() == place.address) return now;
  }
  return absl::UnavailableError(absl::StrCat(worker, " has just gone"));
}

void ClusterControl::FlushKvCache(
    const std::string& worker,
    std::function<void(absl::StatusOr<cluster::v1::FlushKvCacheResponse>)> done) {
  Enqueue([this, worker, done = std::move(done)](const absl::Status& turn) {
    done(turn.ok() ? FlushKvCacheNow(worker) : turn);
  });
}

absl::StatusOr<cluster::v1::FlushKvCacheResponse> ClusterControl::FlushKvCacheNow(
    const std::string& worker) {
  std::vector<WorkerEntry> to_flush;
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  if (worker.empty()) {
    for (const WorkerEntry& entry : table->attention) {
      if (entry.state != WorkerEntry::State::kUnreachable && !entry.twin) to_flush.push_back(entry);
    }
  } else {
    GF_ASSIGN_OR_RETURN(const Place place, Find(worker));
    if (place.expert) {
      return BadField(
          "worker", absl::StrCat("is \"", worker, "\", an expert-service, which has no KV cache"));
    }
    to_flush.push_back(table->attention[place.index]);
  }
  cluster::v1::FlushKvCacheResponse response;
  for (const WorkerEntry& entry : to_flush) {
    internal::v1::FlushPrefixCacheResponse flushed;
    const absl::Status called =
        Call(entry.address, kFlush, internal::v1::FlushPrefixCacheRequest(), &flushed);
    if (!called.ok()) return Annotate(called, entry.name());
    LogEvent(LogLevel::kInfo, "kv_cache_flushed",
             {{"worker", entry.name()}, {"kv_blocks", flushed.n_kv_blocks()}});
    auto* each = response.add_workers();
    each->set_worker(entry.name());
    each->set_n_kv_blocks(flushed.n_kv_blocks());
  }
  return response;
}

absl::Status ClusterControl::Call(const std::string& address, const char* method,
                                  const google::protobuf::MessageLite& request,
                                  google::protobuf::MessageLite* response) const {
  GF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                      MakeChannel(address, ChannelKind::kDecode, options_.channels));
  StreamSet streams(WaitPolicy::Block());
  StreamSet::OpenOptions open;
  open.deadline = absl::Now() + options_.answer_timeout;
  PeerStream* stream = streams.Open(channel, method, open);
  (void)stream->SendLast(WriteMessage(request));  // a failure comes back as kBroken
  StreamEvent event;
  while (streams.WaitAny(absl::InfiniteFuture(), &event)) {
    if (event.kind == StreamEvent::Kind::kAnswer) {
      return response == nullptr ? absl::OkStatus()
                                 : ReadMessage(event.answer, kMaxAnswerBytes, response);
    }
    if (event.kind == StreamEvent::Kind::kBroken) break;
  }
  if (event.status.ok()) return absl::InternalError("ended without an answer");
  // The time was ours, not the caller's.
  if (absl::IsDeadlineExceeded(event.status)) return absl::UnavailableError("does not answer");
  return event.status;
}

}  // namespace gatefold
