#include "router-service/planner/planner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "router-service/planner/placement.h"

namespace gatefold {
namespace {

absl::Status Check(const PlannerInput& input, const PlannerOptions& options) {
  const auto refuse = [](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  };
  if (input.n_layers < 1) return refuse("n_layers is ", input.n_layers, ", must be positive");
  if (input.n_experts < 1) return refuse("n_experts is ", input.n_experts, ", must be positive");
  if (input.expert_bytes < 1) return refuse("expert_bytes is 0, must be positive");
  if (options.min_replicas < 1) {
    return refuse("min_replicas is ", options.min_replicas, ", must be positive");
  }
  if (options.max_replicas < options.min_replicas) {
    return refuse("max_replicas is ", options.max_replicas, ", must be at least min_replicas, ",
                  options.min_replicas);
  }
  const size_t n_items = static_cast<size_t>(input.n_layers) * input.n_experts;
  if (!input.load.empty() && input.load.size() != n_items) {
    return refuse("load has ", input.load.size(), " entries, must have ", n_items);
  }
  for (const double load : input.load) {
    if (!std::isfinite(load) || load < 0)
      return refuse("load has ", load, ", must not be negative");
  }
  std::set<std::string> names;
  for (const ShardState& shard : input.shards) {
    if (!names.insert(shard.name).second)
      return refuse("there are two shards \"", shard.name, "\"");
    if (!std::isfinite(shard.speed) || shard.speed <= 0) {
      return refuse("speed of shard \"", shard.name, "\" is ", shard.speed, ", must be positive");
    }
    for (const uint32_t item : shard.held) {
      if (item >= n_items) {
        return refuse("shard \"", shard.name, "\" holds expert ", item, " of ", n_items);
      }
    }
  }
  return absl::OkStatus();
}

class Planner {
 public:
  Planner(const PlannerInput& input, const PlannerOptions& options)
      : options_(options), placement_(input, options) {}

  Plan Run() {
    if (placement_.n_usable() > 0) {
      KeepWhatIsHeld();
      PlaceTheUncovered();
      // What one of these does may give another something to do. They settle after a round or two;
      // a plan that is planned again must stay as it is.
      constexpr int kRounds = 8;
      for (int i = 0; i < kRounds; ++i) {
        n_changes_ = 0;
        AddReplicas(/*by_load=*/false);
        AddReplicas(/*by_load=*/true);
        SpreadReplicas();
        Balance();
        DropSpareReplicas();
        if (n_changes_ == 0) break;
      }
    }
    return placement_.Result();
  }

 private:
  // Experts by what one replica of them carries, the heaviest first: those leave the fewest
  // choices.
  std::vector<uint32_t> ByLoad() const {
    std::vector<uint32_t> items(placement_.n_items());
    std::iota(items.begin(), items.end(), 0);
    std::stable_sort(items.begin(), items.end(), [&](uint32_t a, uint32_t b) {
      return placement_.load(a) > placement_.load(b);
    });
    return items;
  }

  void KeepWhatIsHeld() {
    for (int shard = 0; shard < placement_.n_shards(); ++shard) {
      if (!placement_.usable(shard)) continue;
      for (uint32_t item = 0; item < placement_.n_items() && placement_.has_room(shard); ++item) {
        if (placement_.held_before(shard, item)) placement_.Add(shard, item);
      }
    }
  }

  // The best shard with room for one more replica of `item`; -1: there is none.
  int Best(uint32_t item) const {
    int best = -1;
    std::tuple<int, double, double> least;
    const int layer = placement_.layer_of(item);
    // What a new replica would carry.
    const double part =
        placement_.load(item) / static_cast<double>(placement_.holders(item).size() + 1);
    for (int shard = 0; shard < placement_.n_shards(); ++shard) {
      if (!placement_.has_room(shard) || placement_.holds(shard, item)) continue;
      const double added = part / placement_.speed(shard);
      const std::tuple<int, double, double> cost = {placement_.Nearness(shard, item),
                                                    placement_.in_layer(shard, layer) + added,
                                                    placement_.total(shard) + added};
      if (best < 0 || Less(cost, least)) best = shard, least = cost;
    }
    return best;
  }

  // Sums of the same parts in another order differ in their last bits; that must decide nothing.
  bool Less(const std::tuple<int, double, double>& a,
            const std::tuple<int, double, double>& b) const {
    if (std::get<0>(a) != std::get<0>(b)) return std::get<0>(a) < std::get<0>(b);
    const double same = 1e-9 * placement_.mean();
    if (std::abs(std::get<1>(a) - std::get<1>(b)) > same) return std::get<1>(a) < std::get<1>(b);
    return std::get<2>(a) < std::get<2>(b) - same;
  }

  void PlaceTheUncovered() {
    for (const uint32_t item : ByLoad()) {
      if (!placement_.holders(item).empty()) continue;
      int shard = Best(item);
      if (shard < 0) shard = MakeRoom();
      if (shard < 0) return;  // full of experts that are nowhere else
      placement_.Add(shard, item);
    }
  }

  // Gives up a replica of an expert that has others: of the one with the most, the lightest.
  // Returns the shard that has room now, or -1.
  int MakeRoom() {
    uint32_t victim = 0;
    std::pair<int, double> best = {1, 0};  // replicas, minus load
    for (uint32_t item = 0; item < placement_.n_items(); ++item) {
      const std::pair<int, double> candidate = {static_cast<int>(placement_.holders(item).size()),
                                                -placement_.load(item)};
      if (candidate.first > 1 && candidate > best) best = candidate, victim = item;
    }
    if (best.first < 2) return -1;
    const int shard = MostLoadedHolder(victim);
    placement_.Remove(shard, victim);
    return shard;
  }

  // Of the holders nearest to each other, the one with the most to do.
  int MostLoadedHolder(uint32_t item) const {
    int worst = -1;
    std::pair<int, double> most;
    for (const int shard : placement_.holders(item)) {
      const std::pair<int, double> candidate = {placement_.Nearness(shard, item),
                                                placement_.total(shard)};
      if (worst < 0 || candidate > most) worst = shard, most = candidate;
    }
    return worst;
  }

  void AddReplicas(bool by_load) {
    const int least = std::min(options_.min_replicas, placement_.n_usable());
    // A round adds one replica at most to each expert, so that what room there is reaches all.
    for (bool added = true; added;) {
      added = false;
      std::vector<uint32_t> items = ByLoad();
      std::stable_sort(items.begin(), items.end(), [&](uint32_t a, uint32_t b) {
        return placement_.replica_load(a) > placement_.replica_load(b);
      });
      for (const uint32_t item : items) {
        const auto n = static_cast<int>(placement_.holders(item).size());
        if (n == 0 || n >= (by_load ? placement_.wanted_replicas(item) : least)) continue;
        const int shard = Best(item);
        if (shard < 0) continue;
        Add(shard, item);
        added = true;
      }
    }
  }

  // Replicas that share a node although another place exists, with room or by a swap.
  void SpreadReplicas() {
    for (uint32_t item = 0; item < placement_.n_items(); ++item) {
      const std::vector<int> holders = placement_.holders(item);
      for (const int shard : holders) {
        if (placement_.holds(shard, item) && placement_.Nearness(shard, item) == 2) {
          SpreadOne(shard, item);
        }
      }
    }
  }

  void SpreadOne(int from, uint32_t item) {
    int best = -1;
    uint32_t exchanged = 0;
    std::tuple<int, int, double> least;  // nearness, needs a swap, load
    for (int to = 0; to < placement_.n_shards(); ++to) {
      if (!placement_.usable(to) || placement_.holds(to, item)) continue;
      const int nearness = placement_.Nearness(to, item, from);
      if (nearness == 2) continue;
      uint32_t other = 0;
      const bool swap = !placement_.has_room(to);
      if (swap && !FindSwap(from, to, &other)) continue;
      const std::tuple<int, int, double> cost = {nearness, swap, placement_.total(to)};
      if (best < 0 || cost < least) best = to, least = cost, exchanged = other;
    }
    if (best < 0) return;
    if (std::get<1>(least) != 0) {
      Remove(best, exchanged);
      Move(from, best, item);
      Add(from, exchanged);
    } else {
      Move(from, best, item);
    }
  }

  // An item of `to` that may as well be on `from`.
  bool FindSwap(int from, int to, uint32_t* item) const {
    for (const uint32_t candidate : placement_.items(to)) {
      if (placement_.holds(from, candidate)) continue;
      if (placement_.Nearness(from, candidate, to) == 2) continue;
      *item = candidate;
      return true;
    }
    return false;
  }

  void Add(int shard, uint32_t item) {
    placement_.Add(shard, item);
    ++n_changes_;
  }
  void Remove(int shard, uint32_t item) {
    placement_.Remove(shard, item);
    ++n_changes_;
  }
  void Move(int from, int to, uint32_t item) {
    Remove(from, item);
    Add(to, item);
  }

  // ---- Evening out.

  struct Exchange {
    int to = -1;
    uint32_t item = 0;
    bool swap = false;
    uint32_t back = 0;        // what comes back, if `swap`
    double worse_of_two = 0;  // load of the two shards afterwards, the larger
    double layer_after = 0;
  };

  // Moves from the shard with the most load to those with the least, while one of them is out of
  // tolerance and a move earns something.
  void Balance() {
    if (placement_.n_usable() < 2) return;
    const int limit = 4 * static_cast<int>(placement_.n_items()) + 64;
    std::vector<bool> stuck(placement_.n_shards(), false);
    for (int i = 0; i < limit; ++i) {
      std::vector<int> order;  // by load, ascending
      for (int shard = 0; shard < placement_.n_shards(); ++shard) {
        if (placement_.usable(shard)) order.push_back(shard);
      }
      std::stable_sort(order.begin(), order.end(),
                       [&](int a, int b) { return placement_.total(a) < placement_.total(b); });
      int from = -1;
      for (auto it = order.rbegin(); it != order.rend(); ++it) {
        if (!stuck[*it]) {
          from = *it;
          break;
        }
      }
      if (from < 0) return;
      const double mean = placement_.mean();
      const double high = placement_.total(from), low = placement_.total(order.front());
      const bool needed = high > mean * (1 + options_.tolerance) ||
                          (low < mean * (1 - options_.tolerance) && high > mean);
      if (!needed) return;
      const Exchange best = FindExchange(from, order);
      if (best.to < 0) {
        stuck[from] = true;
        continue;
      }
      if (best.swap) Remove(best.to, best.back);
      Move(from, best.to, best.item);
      if (best.swap) Add(from, best.back);
      std::fill(stuck.begin(), stuck.end(), false);
    }
  }

  Exchange FindExchange(int from, const std::vector<int>& order) const {
    // More targets than these are hardly ever better.
    constexpr size_t kTargets = 8;
    Exchange best;
    for (size_t t = 0; t < std::min(kTargets, order.size()); ++t) {
      const int to = order[t];
      if (to == from) break;
      for (const uint32_t item : placement_.items(from)) {
        if (placement_.holds(to, item)) continue;
        if (placement_.Nearness(to, item, from) > placement_.Nearness(from, item)) continue;
        if (placement_.has_room(to)) {
          Consider(from, {to, item, false, 0, 0, 0}, 0, &best);
        } else {
          ConsiderSwaps(from, to, item, &best);
        }
      }
    }
    return best;
  }

  void ConsiderSwaps(int from, int to, uint32_t item, Exchange* best) const {
    for (const uint32_t back : placement_.items(to)) {
      if (placement_.holds(from, back)) continue;
      if (placement_.replica_load(back) >= placement_.replica_load(item)) continue;
      if (placement_.Nearness(from, back, to) > placement_.Nearness(to, back)) continue;
      Consider(from, {to, item, true, back, 0, 0}, placement_.replica_load(back), best);
    }
  }

  void Consider(int from, Exchange exchange, double comes_back, Exchange* best) const {
    const double moved = placement_.replica_load(exchange.item) - comes_back;
    const double from_after = placement_.total(from) - moved / placement_.speed(from);
    const double to_after = placement_.total(exchange.to) + moved / placement_.speed(exchange.to);
    exchange.worse_of_two = std::max(from_after, to_after);
    // A move must earn a good part of what it carries, or two shards would pass it back and forth.
    if (placement_.total(from) - exchange.worse_of_two < 0.2 * moved / placement_.speed(from))
      return;
    const int layer = placement_.layer_of(exchange.item);
    exchange.layer_after = placement_.in_layer(exchange.to, layer);
    const double same = 0.01 * placement_.mean();
    const double difference = exchange.worse_of_two - best->worse_of_two;
    if (best->to < 0 || difference < -same ||
        (difference < same &&
         exchange.layer_after < best->layer_after - 1e-9 * placement_.mean())) {
      *best = exchange;
    }
  }

  // A replica that nothing asks for any more goes only when the load asks for half of what there
  // is: load goes up and down, and a replica that is there costs nothing but room.
  void DropSpareReplicas() {
    for (uint32_t item = 0; item < placement_.n_items(); ++item) {
      const int wanted = std::max(placement_.wanted_replicas(item), 1);
      while (static_cast<int>(placement_.holders(item).size()) > 2 * wanted) {
        Remove(MostLoadedHolder(item), item);
      }
    }
    for (const uint32_t item : ByLoad()) {
      const int wanted = std::max(placement_.wanted_replicas(item), 1);
      while (static_cast<int>(placement_.holders(item).size()) > wanted) {
        const int shard = HeldUpBy(item);
        if (shard < 0) break;
        Remove(shard, item);
      }
    }
  }

  // A spare replica costs more than room on a shard that is slow and has too much to do: replicas
  // share an expert's rows evenly, and a step waits for the slowest of them. The shard from which
  // one should go; -1: none.
  int HeldUpBy(uint32_t item) const {
    int slowest = -1;
    double most_speed = 0;
    for (const int shard : placement_.holders(item)) {
      most_speed = std::max(most_speed, placement_.speed(shard));
      if (slowest < 0 || placement_.total(shard) > placement_.total(slowest)) slowest = shard;
    }
    if (placement_.total(slowest) <= placement_.mean() * (1 + options_.tolerance)) return -1;
    if (2 * placement_.speed(slowest) > most_speed) return -1;
    // Those that are left must be as far apart as they are to be.
    for (const int shard : placement_.holders(item)) {
      if (options_.min_replicas > 1 && shard != slowest &&
          placement_.Nearness(shard, item, slowest) == 2) {
        return -1;
      }
    }
    return slowest;
  }

  const PlannerOptions options_;
  Placement placement_;
  int n_changes_ = 0;
};

}  // namespace

absl::StatusOr<Plan> MakePlan(const PlannerInput& input, const PlannerOptions& options) {
  GF_RETURN_IF_ERROR(Check(input, options));
  return Planner(input, options).Run();
}

}  // namespace gatefold
