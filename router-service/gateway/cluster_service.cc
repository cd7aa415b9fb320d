#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gatefold/base/errors.h"
#include "gatefold/cluster/v1/cluster.pb.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway_service.h"
#include "router-service/gateway/paging.h"

namespace gatefold {
namespace {

using cluster::v1::GetClusterRequest;
using cluster::v1::GetClusterResponse;
using cluster::v1::GetExpertLoadRequest;
using cluster::v1::GetExpertLoadResponse;
using cluster::v1::GetGenerationTraceRequest;
using cluster::v1::GetGenerationTraceResponse;
using cluster::v1::GetServingStatsRequest;
using cluster::v1::GetServingStatsResponse;
using cluster::v1::ListWorkersRequest;
using cluster::v1::ListWorkersResponse;
using cluster::v1::WatchExpertLoadRequest;
using cluster::v1::WatchExpertLoadResponse;
using cluster::v1::WatchTopologyRequest;
using cluster::v1::WatchTopologyResponse;

constexpr char kClusterService[] = "gatefold.cluster.v1.ClusterService";

absl::StatusOr<ListWorkersResponse> ListWorkers(const ClusterView& cluster,
                                                const ListWorkersRequest& request) {
  GetClusterResponse snapshot = cluster.Snapshot();
  const absl::StatusOr<Page> page =
      FindPage(snapshot.workers_size(), request.page_size(), request.page_token());
  if (!page.ok()) return page.status();
  ListWorkersResponse response;
  for (int i = page->begin; i < page->end; ++i) {
    *response.add_workers() = std::move(*snapshot.mutable_workers(i));
  }
  response.set_next_page_token(page->next_page_token);
  return response;
}

absl::StatusOr<absl::Duration> Interval(const WatchExpertLoadRequest& request) {
  if (!request.has_interval()) return absl::Seconds(1);
  const absl::Duration interval =
      absl::Seconds(request.interval().seconds()) + absl::Nanoseconds(request.interval().nanos());
  if (interval < absl::Milliseconds(100) || interval > absl::Hours(1)) {
    return BadField("interval", absl::StrCat("is ", absl::FormatDuration(interval),
                                             ", must be within 100ms and 1h"));
  }
  return interval;
}

// What a method without a request field answers from memory.
template <typename Request, typename Response, typename Answer>
void AddQuery(RpcServer* server, const char* method, Answer answer) {
  AddUnary<Request, Response>(
      server, kClusterService, method,
      [answer](std::shared_ptr<CallContext> /*call*/, const Request& request,
               Respond<Response> respond) { respond(answer(request)); });
}

void AddWatches(RpcServer* server, ClusterWatch* watch) {
  MethodOptions options;
  options.end_at_shutdown = true;
  options.max_queued_messages = 2;  // what is older than that nobody needs
  options.max_queued_bytes = size_t{16} << 20;
  AddServerStreaming<WatchTopologyRequest, WatchTopologyResponse>(
      server, kClusterService, "WatchTopology",
      [watch](std::shared_ptr<CallContext> call, const WatchTopologyRequest& /*request*/,
              std::shared_ptr<ClusterWatch::TopologyStream> stream) {
        watch->AddTopology(std::move(call), std::move(stream));
      },
      options);
  AddServerStreaming<WatchExpertLoadRequest, WatchExpertLoadResponse>(
      server, kClusterService, "WatchExpertLoad",
      [watch](std::shared_ptr<CallContext> call, const WatchExpertLoadRequest& request,
              std::shared_ptr<ClusterWatch::LoadStream> stream) {
        const absl::StatusOr<absl::Duration> interval = Interval(request);
        if (!interval.ok()) return stream->Finish(interval.status());
        watch->AddLoad(std::move(call), std::move(stream), *interval);
      },
      options);
}

void AddTraces(RpcServer* server, const Gateway* gateway) {
  AddUnary<GetGenerationTraceRequest, GetGenerationTraceResponse>(
      server, kClusterService, "GetGenerationTrace",
      [gateway](std::shared_ptr<CallContext> call, const GetGenerationTraceRequest& request,
                Respond<GetGenerationTraceResponse> respond) {
        if (request.request_id().empty()) return respond(BadField("request_id", "is empty"));
        const auto caller = std::dynamic_pointer_cast<Caller>(call->principal());
        const bool sees_all = caller == nullptr || caller->key().admin;
        auto trace = gateway->TraceOf(request.request_id(), sees_all ? nullptr : caller.get());
        if (!trace.ok()) return respond(trace.status());
        GetGenerationTraceResponse response;
        *response.mutable_trace() = *std::move(trace);
        respond(response);
      });
}

}  // namespace

void AddClusterService(RpcServer* server, const ClusterServiceParts& parts) {
  const ClusterView* cluster = parts.view;
  AddQuery<GetClusterRequest, GetClusterResponse>(
      server, "GetCluster", [cluster](const GetClusterRequest&) { return cluster->Snapshot(); });
  AddQuery<ListWorkersRequest, ListWorkersResponse>(
      server, "ListWorkers",
      [cluster](const ListWorkersRequest& request) { return ListWorkers(*cluster, request); });
  AddQuery<GetExpertLoadRequest, GetExpertLoadResponse>(
      server, "GetExpertLoad", [cluster](const GetExpertLoadRequest&) {
        GetExpertLoadResponse response;
        for (cluster::v1::ExpertLoad& load : cluster->ExpertLoads()) {
          *response.add_experts() = std::move(load);
        }
        return response;
      });
  if (parts.stats != nullptr) {
    AddQuery<GetServingStatsRequest, GetServingStatsResponse>(
        server, "GetServingStats",
        [stats = parts.stats](const GetServingStatsRequest&) { return stats->Stats(); });
  }
  if (parts.gateway != nullptr) AddTraces(server, parts.gateway);
  if (parts.watch != nullptr) AddWatches(server, parts.watch);
}

}  // namespace gatefold
