#include "cli/plan/traffic.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace gatefold::cli {
namespace {

// SplitMix64: the same numbers on every machine, which standard distributions do not promise.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }  // [0, 1)

 private:
  uint64_t state_;
};

// The experts of one layer by their chance.
class Gate {
 public:
  Gate(const double* popularity, int n_experts)
      : popularity_(popularity), sums_(n_experts), race_(n_experts) {
    std::partial_sum(popularity, popularity + n_experts, sums_.begin());
  }
  // `top_k` different experts.
  void Draw(Random* random, int top_k, std::vector<int>* experts) {
    if (4 * top_k > static_cast<int>(sums_.size())) return Race(random, top_k, experts);
    experts->clear();
    while (static_cast<int>(experts->size()) < top_k) {
      const double at = random->Unit() * sums_.back();
      const auto found = std::upper_bound(sums_.begin(), sums_.end(), at);
      const int expert =
          std::min(static_cast<int>(found - sums_.begin()), static_cast<int>(sums_.size()) - 1);
      if (std::find(experts->begin(), experts->end(), expert) == experts->end()) {
        experts->push_back(expert);
      }
    }
  }

 private:
  // The same chances, at a cost that does not grow when few experts are left to be drawn: each
  // arrives after an exponential time with its popularity as rate, and the first ones win.
  void Race(Random* random, int top_k, std::vector<int>* experts) {
    for (size_t i = 0; i < race_.size(); ++i) {
      race_[i] = {-std::log(1 - random->Unit()) / popularity_[i], static_cast<int>(i)};
    }
    std::nth_element(race_.begin(), race_.begin() + (top_k - 1), race_.end());
    experts->clear();
    for (int i = 0; i < top_k; ++i) experts->push_back(race_[i].second);
  }

  const double* const popularity_;
  std::vector<double> sums_;
  std::vector<std::pair<double, int>> race_;
};

// What the shards have to do in one layer of one step.
class Layer {
 public:
  Layer(int n_shards, int n_experts)
      : n_pairs_(n_shards), n_experts_of_(n_shards), last_row_(n_shards, -1), used_(n_experts) {}

  void Add(int row, int expert, int shard) {
    ++n_pairs_[shard];
    if (!used_[expert]) ++n_experts_of_[shard];
    used_[expert] = true;
    if (last_row_[shard] != row) ++n_rows_sent_;
    last_row_[shard] = row;
  }
  void AddTo(LayerTraffic* traffic) const {
    const auto busy = std::count_if(n_pairs_.begin(), n_pairs_.end(), [](int n) { return n > 0; });
    const double pairs = std::accumulate(n_pairs_.begin(), n_pairs_.end(), 0.0);
    const double most = *std::max_element(n_pairs_.begin(), n_pairs_.end());
    traffic->n_messages += static_cast<double>(busy);
    traffic->n_rows_sent += n_rows_sent_;
    traffic->n_rows_answered += pairs;
    traffic->most_rows += most;
    traffic->most_experts += *std::max_element(n_experts_of_.begin(), n_experts_of_.end());
  }

 private:
  std::vector<int> n_pairs_, n_experts_of_, last_row_;
  std::vector<bool> used_;
  double n_rows_sent_ = 0;
};

}  // namespace

std::vector<double> ExpertPopularity(int n_layers, int n_experts, const TrafficOptions& options) {
  Random random(options.seed);
  std::vector<double> popularity;
  std::vector<double> layer(n_experts);
  for (int rank = 0; rank < n_experts; ++rank) layer[rank] = std::pow(rank + 1, -options.skew);
  const double sum = std::accumulate(layer.begin(), layer.end(), 0.0);
  for (double& share : layer) share /= sum;
  for (int l = 0; l < n_layers; ++l) {
    for (int i = n_experts - 1; i > 0; --i) {
      std::swap(layer[i], layer[random.Next() % static_cast<uint64_t>(i + 1)]);
    }
    popularity.insert(popularity.end(), layer.begin(), layer.end());
  }
  return popularity;
}

LayerTraffic DrawTraffic(const Plan& plan, int n_layers, int n_experts,
                         const std::vector<double>& popularity, const TrafficOptions& options) {
  std::vector<std::vector<int>> holders(static_cast<size_t>(n_layers) * n_experts);
  for (size_t shard = 0; shard < plan.experts.size(); ++shard) {
    for (const uint32_t item : plan.experts[shard]) {
      holders[item].push_back(static_cast<int>(shard));
    }
  }
  Random random(options.seed + 1);
  LayerTraffic sum;
  std::vector<int> experts;
  for (int l = 0; l < n_layers; ++l) {
    const size_t first = static_cast<size_t>(l) * n_experts;
    Gate gate(&popularity[first], n_experts);
    for (int step = 0; step < options.n_steps; ++step) {
      Layer layer(static_cast<int>(plan.experts.size()), n_experts);
      for (int row = 0; row < options.n_rows; ++row) {
        gate.Draw(&random, options.top_k, &experts);
        for (const int expert : experts) {
          const std::vector<int>& places = holders[first + expert];
          layer.Add(row, expert, places[(step + expert) % places.size()]);
        }
      }
      layer.AddTo(&sum);
    }
  }
  const double n = static_cast<double>(n_layers) * options.n_steps;
  LayerTraffic mean{sum.n_messages / n,   sum.n_rows_sent / n, sum.n_rows_answered / n,
                    sum.most_experts / n, sum.most_rows / n,   1};
  mean.imbalance = mean.most_rows * static_cast<double>(plan.experts.size()) / mean.n_rows_answered;
  return mean;
}

}  // namespace gatefold::cli
