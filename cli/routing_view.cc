#include "cli/routing_view.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "traces are little-endian");

template <typename T>
T Load(const std::string& packed, size_t index) {
  T value;
  std::memcpy(&value, packed.data() + index * sizeof(T), sizeof(T));
  return value;
}

// a * b * c == want, without overflow.
bool ProductIs(uint64_t a, uint64_t b, uint64_t c, uint64_t want) {
  if (a == 0 || b == 0 || c == 0) return want == 0;
  return want % a == 0 && want / a % b == 0 && want / a / b == c;
}

}  // namespace

absl::StatusOr<RoutingView> RoutingView::Create(const inference::v1::RoutingTrace& trace) {
  const size_t n_pairs = trace.shards().size();
  if (!ProductIs(trace.n_tokens(), trace.layer_ids_size(), trace.top_k(), n_pairs) ||
      trace.expert_ids().size() != n_pairs * sizeof(uint16_t) ||
      trace.gate_weights().size() != n_pairs * sizeof(float)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the routing trace does not fit its counts: ", trace.n_tokens(), " tokens, ",
                     trace.layer_ids_size(), " layers, top ", trace.top_k(), "; ",
                     trace.expert_ids().size(), " bytes of experts, ", trace.gate_weights().size(),
                     " of weights, ", n_pairs, " of shards"));
  }
  for (const char byte : trace.shards()) {
    if (static_cast<uint8_t>(byte) >= trace.shard_names_size()) {
      return absl::InvalidArgumentError(absl::StrCat("the routing trace names shard ",
                                                     static_cast<uint8_t>(byte), " of ",
                                                     trace.shard_names_size()));
    }
  }
  return RoutingView(trace);
}

int RoutingView::expert(size_t token, size_t layer, size_t k) const {
  return Load<uint16_t>(trace_->expert_ids(), At(token, layer, k));
}

float RoutingView::weight(size_t token, size_t layer, size_t k) const {
  return Load<float>(trace_->gate_weights(), At(token, layer, k));
}

const std::string& RoutingView::shard(size_t token, size_t layer, size_t k) const {
  return trace_->shard_names(Load<uint8_t>(trace_->shards(), At(token, layer, k)));
}

absl::Status RoutingShares::Add(const inference::v1::RoutingTrace& trace) {
  GF_ASSIGN_OR_RETURN(const RoutingView view, RoutingView::Create(trace));
  for (size_t token = 0; token < view.n_tokens(); ++token) {
    for (size_t layer = 0; layer < view.n_layers(); ++layer) {
      for (size_t k = 0; k < view.top_k(); ++k) {
        ++total;
        ++by_shard[view.shard(token, layer, k)];
        ++by_expert[{view.layer_id(layer), view.expert(token, layer, k)}];
        ++by_layer_[view.layer_id(layer)];
      }
    }
  }
  return absl::OkStatus();
}

double RoutingShares::ShardShare(const std::string& shard) const {
  const auto found = by_shard.find(shard);
  return found == by_shard.end() ? 0 : 100.0 * found->second / total;
}

double RoutingShares::ExpertShare(uint32_t layer, int expert) const {
  const auto found = by_expert.find({layer, expert});
  return found == by_expert.end() ? 0 : 100.0 * found->second / by_layer_.at(layer);
}

}  // namespace gatefold::cli
