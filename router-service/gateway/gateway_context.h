#pragma once

#include <functional>

#include "absl/time/time.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/gateway/gateway_options.h"
#include "router-service/gateway/generation_history.h"
#include "router-service/gateway/live_requests.h"
#include "router-service/gateway/model_info.h"
#include "router-service/gateway/request_checker.h"
#include "router-service/gateway/text_codec.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

// What every request of one gateway shares. Everything pointed to outlives the requests.
struct GatewayContext {
  GatewayOptions options;
  ModelInfo model;
  int max_sequence_tokens = 0;       // what model and scheduler both allow
  const TextCodec* codec = nullptr;  // null: the model has no tokenizer
  GenerationService* service = nullptr;
  const ClusterView* cluster = nullptr;
  GatewayObserver* observer = nullptr;  // may be null
  const RequestChecker* checker = nullptr;
  LiveRequests* live = nullptr;
  GenerationHistory* history = nullptr;
  std::function<absl::Time()> clock;
};

}  // namespace gatefold
