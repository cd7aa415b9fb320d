#include "router-service/dispatch/placement_order.h"

#include <algorithm>

namespace gatefold {

std::vector<int> OrderPlaces(std::vector<AttentionPlace> places, int n_positions,
                             absl::Span<const uint64_t> names, PrefixAffinity* affinity) {
  std::erase_if(places, [n_positions](const AttentionPlace& place) {
    return place.max_sequence_tokens != 0 && n_positions > place.max_sequence_tokens;
  });
  std::stable_sort(places.begin(), places.end(),
                   [](const AttentionPlace& a, const AttentionPlace& b) {
                     return a.n_free_blocks > b.n_free_blocks;
                   });
  auto best = places.begin();
  int n_most = 0;
  for (auto it = places.begin(); it != places.end(); ++it) {
    if (2 * it->n_free_blocks < places.front().n_free_blocks) break;
    const int n_known = affinity->Known(names, it->incarnation);
    if (n_known > n_most) {
      n_most = n_known;
      best = it;
    }
  }
  if (best != places.begin()) std::rotate(places.begin(), best, best + 1);
  std::vector<int> order;
  for (const AttentionPlace& place : places) order.push_back(place.index);
  return order;
}

}  // namespace gatefold
