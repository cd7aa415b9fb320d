#include "router-service/planner/assigner.h"

#include <algorithm>
#include <iterator>

#include "router-service/planner/items.h"

namespace gatefold {

void Assigner::NoteComplete(const std::vector<ShardView>& shards, const Plan& plan,
                            absl::Time now) {
  std::vector<int> planned(complete_since_.size()), announced(complete_since_.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const uint32_t item : plan.experts[i]) {
      ++planned[item];
      announced[item] += shards[i].ready && Contains(shards[i].announced, item);
    }
  }
  for (size_t item = 0; item < complete_since_.size(); ++item) {
    const bool complete = planned[item] > 0 && announced[item] == planned[item];
    if (!complete) {
      complete_since_[item].reset();
    } else if (!complete_since_[item].has_value()) {
      complete_since_[item] = now;
    }
  }
}

void Assigner::NoteServed(const std::vector<int>& n_holders, absl::Time now) {
  for (size_t item = 0; item < served_since_.size(); ++item) {
    if (n_holders[item] == 0) {
      served_since_[item].reset();
    } else if (!served_since_[item].has_value()) {
      served_since_[item] = now;
    }
  }
}

std::vector<uint32_t> Assigner::StillNeeded(const ShardView& shard, absl::Time now) const {
  std::vector<uint32_t> needed;
  for (const uint32_t item : shard.announced) {
    const std::optional<absl::Time>& since = served_since_[item];
    if (!since.has_value() || now < *since + grace_) needed.push_back(item);
  }
  return needed;
}

Assigner::Step Assigner::StepOf(const ShardView& shard, const std::vector<uint32_t>& target,
                                const std::vector<int>& n_holders, absl::Time now) const {
  Step step;
  step.slots =
      shard.capacity_bytes == 0 ? complete_since_.size() : shard.capacity_bytes / expert_bytes_;
  for (const uint32_t item : shard.announced) {
    const std::optional<absl::Time>& since = complete_since_[item];
    const bool needed_here = !since.has_value() || now < *since + grace_;
    const bool planned_here = Contains(target, item);
    if (planned_here || needed_here) step.kept.push_back(item);
    step.goes_on |= !planned_here && since.has_value();
  }
  for (const uint32_t item : target) {
    if (!Contains(shard.announced, item)) step.waiting.push_back(item);
  }
  // First what requests may be waiting for.
  std::stable_partition(step.waiting.begin(), step.waiting.end(),
                        [&](uint32_t item) { return n_holders[item] == 0; });
  const size_t room = step.slots - std::min(step.slots, step.kept.size());
  const size_t n_coming = std::min(room, step.waiting.size());
  step.coming.assign(step.waiting.begin(), step.waiting.begin() + n_coming);
  step.waiting.erase(step.waiting.begin(), step.waiting.begin() + n_coming);
  step.goes_on |= n_coming > 0;
  return step;
}

bool Assigner::MakeRoomFor(uint32_t item, const std::vector<uint32_t>& target,
                           std::vector<int>* n_holders, Step* step) {
  if (step->kept.size() + step->coming.size() > step->slots) return false;  // it has too many
  auto given_up = step->kept.end();
  for (auto kept = step->kept.begin(); kept != step->kept.end(); ++kept) {
    if (Contains(target, *kept) || (*n_holders)[*kept] < 2) continue;
    if (given_up == step->kept.end() || (*n_holders)[*kept] > (*n_holders)[*given_up]) {
      given_up = kept;
    }
  }
  if (given_up == step->kept.end()) return false;
  --(*n_holders)[*given_up];
  step->kept.erase(given_up);
  step->coming.push_back(item);
  std::erase(step->waiting, item);
  return true;
}

bool Assigner::CoverWaiting(const Plan& plan, std::vector<int>* n_holders,
                            std::vector<Step>* steps) {
  std::vector<bool> comes(n_holders->size());
  for (const Step& step : *steps) {
    for (const uint32_t item : step.coming) comes[item] = true;
  }
  bool covered = false;
  for (size_t i = 0; i < steps->size(); ++i) {
    const std::vector<uint32_t> waiting = (*steps)[i].waiting;
    for (const uint32_t item : waiting) {
      if ((*n_holders)[item] > 0 || comes[item]) continue;
      if (!MakeRoomFor(item, plan.experts[i], n_holders, &(*steps)[i]) &&
          !Lodge(item, *n_holders, steps)) {
        continue;
      }
      comes[item] = covered = true;
    }
  }
  return covered;
}

bool Assigner::Lodge(uint32_t item, const std::vector<int>& n_holders, std::vector<Step>* steps) {
  for (const bool instead_of_another : {false, true}) {
    for (Step& step : *steps) {
      if (instead_of_another) {
        if (step.coming.empty() || n_holders[step.coming.back()] == 0) continue;
        step.waiting.push_back(step.coming.back());
        step.coming.pop_back();
      } else if (step.kept.size() + step.coming.size() >= step.slots) {
        continue;
      }
      step.coming.push_back(item);
      return true;
    }
  }
  return false;
}

std::vector<std::optional<std::vector<uint32_t>>> Assigner::Next(
    const std::vector<ShardView>& shards, const Plan& plan, absl::Time now) {
  NoteComplete(shards, plan, now);
  const auto takes_part = [](const ShardView& shard) { return shard.ready && !shard.draining; };
  std::vector<int> n_holders(complete_since_.size());
  for (const ShardView& shard : shards) {
    if (!takes_part(shard)) continue;
    for (const uint32_t item : shard.announced) ++n_holders[item];
  }
  NoteServed(n_holders, now);
  std::vector<Step> steps(shards.size());
  bool goes_on = false;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (!takes_part(shards[i])) continue;
    steps[i] = StepOf(shards[i], plan.experts[i], n_holders, now);
    goes_on |= steps[i].goes_on;
  }
  goes_on |= CoverWaiting(plan, &n_holders, &steps);
  for (size_t i = 0; i < shards.size() && !goes_on; ++i) {
    Step& step = steps[i];
    goes_on = !step.waiting.empty() &&
              MakeRoomFor(step.waiting.front(), plan.experts[i], &n_holders, &step);
  }
  std::vector<std::optional<std::vector<uint32_t>>> next(shards.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    if (shards[i].ready && shards[i].draining && shards[i].ending) {
      next[i] = StillNeeded(shards[i], now);
    }
    if (!takes_part(shards[i])) continue;
    Step& step = steps[i];
    std::sort(step.coming.begin(), step.coming.end());
    std::vector<uint32_t>& all = next[i].emplace();
    std::merge(step.kept.begin(), step.kept.end(), step.coming.begin(), step.coming.end(),
               std::back_inserter(all));
  }
  return next;
}

}  // namespace gatefold
