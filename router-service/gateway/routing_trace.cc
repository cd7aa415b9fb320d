#include "router-service/gateway/routing_trace.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "gatefold/engine/expert_client.h"

namespace gatefold {
namespace {

void AppendLittleEndian(uint32_t value, int n_bytes, std::string* out) {
  for (int i = 0; i < n_bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Index of `name` in the trace's own list, which grows.
int IndexOfShard(const std::string& name, inference::v1::RoutingTrace* trace) {
  const auto& names = trace->shard_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  trace->add_shard_names(name);
  return trace->shard_names_size() - 1;
}

bool SameShape(const TraceChunk& chunk, const inference::v1::RoutingTrace& trace) {
  return static_cast<int>(trace.top_k()) == chunk.top_k &&
         std::equal(chunk.layers.begin(), chunk.layers.end(), trace.layer_ids().begin(),
                    trace.layer_ids().end(),
                    [](int a, uint32_t b) { return static_cast<uint32_t>(a) == b; });
}

}  // namespace

bool AppendTrace(const TraceChunk& chunk, int first_position, int end_position,
                 const std::vector<std::string>& shard_names, inference::v1::RoutingTrace* trace) {
  const int first = std::max(first_position, chunk.first_position);
  const int end = std::min(end_position, chunk.first_position + chunk.n_tokens);
  if (first >= end) return true;
  if (trace->n_tokens() == 0) {
    trace->set_first_position(first);
    trace->set_top_k(chunk.top_k);
    for (const int layer : chunk.layers) trace->add_layer_ids(layer);
  } else if (static_cast<int>(trace->first_position() + trace->n_tokens()) != first ||
             !SameShape(chunk, *trace)) {
    return false;
  }
  std::array<int, 256> local;
  local.fill(-1);
  const size_t per_token = chunk.layers.size() * chunk.top_k;
  const size_t from = (first - chunk.first_position) * per_token;
  const size_t to = (end - chunk.first_position) * per_token;
  for (size_t i = from; i < to; ++i) {
    AppendLittleEndian(chunk.experts[i], 2, trace->mutable_expert_ids());
    AppendLittleEndian(FloatBits(chunk.weights[i]), 4, trace->mutable_gate_weights());
    const uint8_t shard = chunk.served_by[i];
    if (local[shard] < 0) {
      local[shard] = IndexOfShard(shard == kNoShard            ? "none"
                                  : shard < shard_names.size() ? shard_names[shard]
                                                               : absl::StrCat("shard-", shard),
                                  trace);
    }
    trace->mutable_shards()->push_back(static_cast<char>(local[shard]));
  }
  trace->set_n_tokens(trace->n_tokens() + end - first);
  return true;
}

bool AppendTrace(const inference::v1::RoutingTrace& more, inference::v1::RoutingTrace* trace) {
  if (more.n_tokens() == 0) return true;
  if (trace->n_tokens() == 0) {
    *trace = more;
    return true;
  }
  const bool same_layers = std::equal(more.layer_ids().begin(), more.layer_ids().end(),
                                      trace->layer_ids().begin(), trace->layer_ids().end());
  if (trace->first_position() + trace->n_tokens() != more.first_position() ||
      trace->top_k() != more.top_k() || !same_layers) {
    return false;
  }
  std::vector<int> local;
  for (const std::string& name : more.shard_names()) local.push_back(IndexOfShard(name, trace));
  for (const char shard : more.shards()) {
    trace->mutable_shards()->push_back(static_cast<char>(local[static_cast<uint8_t>(shard)]));
  }
  trace->mutable_expert_ids()->append(more.expert_ids());
  trace->mutable_gate_weights()->append(more.gate_weights());
  trace->set_n_tokens(trace->n_tokens() + more.n_tokens());
  return true;
}

}  // namespace gatefold
