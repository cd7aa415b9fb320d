#include "gatefold/engine/layer_trace.h"

#include <algorithm>
#include <numeric>

namespace gatefold {

LayerTrace TraceOf(int layer, const Routes& routes, absl::Span<const uint8_t> served_by) {
  const size_t k = routes.top_k;
  LayerTrace trace;
  trace.layer = layer;
  std::vector<size_t> order(k);
  for (size_t first = 0; first < routes.experts.size(); first += k) {
    std::iota(order.begin(), order.end(), first);
    std::stable_sort(order.begin(), order.end(), [&routes](size_t a, size_t b) {
      return routes.weights[a] > routes.weights[b];
    });
    for (size_t i : order) {
      trace.experts.push_back(static_cast<uint16_t>(routes.experts[i]));
      trace.weights.push_back(routes.weights[i]);
      trace.served_by.push_back(served_by[i]);
    }
  }
  return trace;
}

}  // namespace gatefold
