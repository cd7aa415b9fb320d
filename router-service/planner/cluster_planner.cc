#include "router-service/planner/cluster_planner.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/traffic.h"
#include "router-service/planner/items.h"

namespace gatefold {
namespace {

constexpr char kAssign[] = "/gatefold.internal.v1.ExpertService/Assign";
// Shards within this share of the mean load are even enough when an operator asks.
constexpr double kRebalanceTolerance = 0.01;
constexpr absl::Duration kTick = absl::Milliseconds(100);  // how soon a change is noticed

// A shard that can be told what to hold.
bool Planned(const WorkerEntry& entry) {
  return entry.shard.assignable() && (entry.state == WorkerEntry::State::kReady ||
                                      entry.state == WorkerEntry::State::kDraining);
}

ShardKind KindOf(const internal::v1::WorkerDescription& worker) {
  ShardKind kind = {worker.backend().empty() ? "cpu" : worker.backend(), worker.isa()};
  if (kind.on_cpu()) kind.n_threads = std::max(1u, worker.n_threads());
  return kind;
}

void LogSpeeds(const ShardSpeeds& speeds) {
  for (const ShardSpeeds::Speed& speed : speeds.Measured()) {
    LogEvent(LogLevel::kInfo, "shard_speed",
             {{"backend", speed.kind.backend},
              {"device", speed.kind.device},
              {"threads", speed.kind.n_threads},
              {"rows_per_second", speed.rows_per_second}});
  }
}

using ExpertRanges = google::protobuf::RepeatedPtrField<internal::v1::ExpertRange>;

void AddRanges(const std::vector<uint32_t>& experts, int n_experts, ExpertRanges* ranges) {
  internal::v1::ExpertRange* range = nullptr;
  uint32_t previous = 0;
  for (const uint32_t item : experts) {
    const uint32_t layer = item / n_experts, expert = item % n_experts;
    if (range == nullptr || item != previous + 1 || range->layer() != layer) {
      range = ranges->Add();
      range->set_layer(layer);
      range->set_first_expert(expert);
    }
    range->set_n_experts(range->n_experts() + 1);
    previous = item;
  }
}

internal::v1::AssignRequest MakeRequest(uint64_t epoch, const std::vector<uint32_t>& experts,
                                        const std::vector<Holder>& holders,
                                        const RoutingTable& table, int n_experts) {
  internal::v1::AssignRequest request;
  request.set_epoch(epoch);
  AddRanges(experts, n_experts, request.mutable_experts());
  for (const Holder& holder : holders) {
    internal::v1::ExpertHolder* const added = request.add_holders();
    added->set_address(table.experts[holder.shard].address);
    AddRanges(holder.items, n_experts, added->mutable_experts());
  }
  return request;
}

// What can be fetched at each address, ascending. A shard may be there twice: memory and files.
std::map<std::string, std::vector<uint32_t>> ByAddress(const std::vector<Holder>& holders,
                                                       const RoutingTable& table) {
  std::map<std::string, std::vector<uint32_t>> items;
  for (const Holder& holder : holders) {
    std::vector<uint32_t>& at = items[table.experts[holder.shard].address];
    at.insert(at.end(), holder.items.begin(), holder.items.end());
    std::sort(at.begin(), at.end());
  }
  return items;
}

std::vector<uint32_t> Without(const std::vector<uint32_t>& items,
                              const std::vector<uint32_t>& others) {
  std::vector<uint32_t> rest;
  std::set_difference(items.begin(), items.end(), others.begin(), others.end(),
                      std::back_inserter(rest));
  return rest;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterPlanner>> ClusterPlanner::Start(const Options& options,
                                                                      const Sizes& sizes,
                                                                      Directory* directory) {
  std::unique_ptr<ClusterPlanner> planner(new ClusterPlanner(options, sizes, directory));
  GF_RETURN_IF_ERROR(planner->Meet(*directory->Table()));
  planner->thread_ = std::thread([p = planner.get()] { p->Run(); });
  return planner;
}

ClusterPlanner::ClusterPlanner(const Options& options, const Sizes& sizes, Directory* directory)
    : options_(options),
      sizes_(sizes),
      directory_(directory),
      load_(static_cast<size_t>(sizes.n_layers) * sizes.n_experts, options.half_life),
      speeds_(options.speed_half_life),
      assigner_(static_cast<size_t>(sizes.n_layers) * sizes.n_experts, sizes.expert_bytes,
                options.grace),
      streams_(WaitPolicy::Block()) {}

ClusterPlanner::~ClusterPlanner() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

ClusterPlanner::Status ClusterPlanner::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

absl::Status ClusterPlanner::Meet(const RoutingTable& table) {
  shards_.resize(std::max(shards_.size(), table.experts.size()));
  for (size_t i = 0; i < table.experts.size(); ++i) {
    const std::string& address = table.experts[i].address;
    if (shards_[i].address == address) continue;
    shards_[i] = Shard();
    shards_[i].address = address;
    GF_ASSIGN_OR_RETURN(shards_[i].channel,
                        MakeChannel(address, ChannelKind::kDecode, options_.channels));
  }
  return absl::OkStatus();
}

void ClusterPlanner::Run() {
  uint64_t seen = 0;
  absl::Time looked = absl::InfinitePast();
  while (true) {
    int n_wanted = 0;
    bool rebalance = false;
    {
      absl::MutexLock lock(&mu_);
      const auto urgent = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || n_rebalances_wanted_ > n_rebalances_;
      };
      mu_.AwaitWithTimeout(absl::Condition(&urgent), kTick);
      if (stopping_) return;
      n_wanted = n_rebalances_wanted_;
      rebalance = n_wanted > n_rebalances_;
    }
    const std::shared_ptr<const RoutingTable> table = directory_->Table();
    const absl::Time now = absl::Now();
    if (!rebalance && table->version == seen && now < looked + options_.interval) continue;
    seen = table->version;
    looked = now;
    PlannerOptions options = options_.plan;
    if (rebalance) options.tolerance = kRebalanceTolerance;
    absl::StatusOr<Plan> plan = Look(*table, now, options);
    if (!rebalance) continue;
    absl::MutexLock lock(&mu_);
    n_rebalances_ = n_wanted;
    rebalanced_ = std::move(plan);
  }
}

absl::StatusOr<Plan> ClusterPlanner::Rebalance(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const int mine = ++n_rebalances_wanted_;
  const auto done = [this, mine]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return n_rebalances_ >= mine || stopping_;
  };
  if (!mu_.AwaitWithDeadline(absl::Condition(&done), deadline)) {
    return absl::DeadlineExceededError("the planner is busy");
  }
  if (stopping_) return absl::UnavailableError("the planner is ending");
  return rebalanced_;
}

std::vector<uint32_t> ClusterPlanner::Announced(const WorkerEntry& entry) const {
  std::vector<uint32_t> items;
  for (const internal::v1::ExpertRange& range : entry.shard.held()) {
    if (range.layer() >= static_cast<uint32_t>(sizes_.n_layers)) continue;
    const uint64_t end =
        std::min<uint64_t>(uint64_t{range.first_expert()} + range.n_experts(), sizes_.n_experts);
    for (uint64_t expert = range.first_expert(); expert < end; ++expert) {
      items.push_back(static_cast<uint32_t>(range.layer() * sizes_.n_experts + expert));
    }
  }
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  return items;
}

PlannerInput ClusterPlanner::MakeInput(const RoutingTable& table, absl::Time now) {
  PlannerInput input;
  input.n_layers = sizes_.n_layers;
  input.n_experts = sizes_.n_experts;
  input.expert_bytes = sizes_.expert_bytes;
  of_plan_.clear();
  const uint64_t all = input.expert_bytes * sizes_.n_layers * sizes_.n_experts;
  for (size_t i = 0; i < table.experts.size(); ++i) {
    const WorkerEntry& entry = table.experts[i];
    if (!Planned(entry)) continue;
    const int index = static_cast<int>(i);
    load_.Note(index, entry.worker.incarnation(), directory_->RowsOfShard(index));
    const Directory::ShardWork work = directory_->WorkOfShard(index);
    speeds_.Note(index, work.incarnation, KindOf(entry.worker), work.n_rows, work.busy);
    Shard& known = shards_[i];
    if (known.incarnation != entry.worker.incarnation()) {
      known.incarnation = entry.worker.incarnation();
      known.planned = known.was_told = false;
      known.epoch = 0;
    }
    // Another planner was at work, before this one or beside it: this one goes on from there.
    if (entry.shard.epoch() > known.epoch) {
      known.planned = known.was_told = false;
      known.epoch = entry.shard.epoch();
    }
    ShardState& state = input.shards.emplace_back();
    state.name = entry.address;
    state.capacity_bytes = entry.shard.capacity_bytes() == 0 ? all : entry.shard.capacity_bytes();
    state.node = entry.worker.node();
    state.zone = entry.worker.zone();
    state.draining = entry.state == WorkerEntry::State::kDraining;
    // What it was to have by the last plan. What it announces besides is on its way out.
    state.held = known.planned ? known.target : Announced(entry);
    of_plan_.push_back(index);
  }
  load_.Advance(now);
  input.load = load_.Rates();
  if (speeds_.Advance(now)) LogSpeeds(speeds_);
  for (size_t i = 0; i < of_plan_.size(); ++i) {
    input.shards[i].speed = speeds_.Of(KindOf(table.experts[of_plan_[i]].worker));
  }
  return input;
}

std::vector<ShardView> ClusterPlanner::Views(const RoutingTable& table) const {
  std::vector<ShardView> views;
  for (const int i : of_plan_) {
    const WorkerEntry& entry = table.experts[i];
    views.push_back({.ready = true,
                     .draining = entry.state == WorkerEntry::State::kDraining,
                     .capacity_bytes = entry.shard.capacity_bytes(),
                     .announced = Announced(entry),
                     .ending = entry.worker.ending()});
  }
  return views;
}

std::vector<HolderView> ClusterPlanner::HolderViews(const RoutingTable& table) const {
  std::vector<HolderView> views;
  for (size_t i = 0; i < table.experts.size(); ++i) {
    const WorkerEntry& entry = table.experts[i];
    HolderView& view = views.emplace_back();
    view.draining = entry.state == WorkerEntry::State::kDraining;
    view.usable = view.draining || entry.state == WorkerEntry::State::kReady;
    view.has_checkpoint = entry.shard.has_checkpoint();
    view.sends_held = entry.shard.sends_held();
    view.busy = directory_->BusyRatio(/*expert=*/true, static_cast<int>(i));
    view.announced = Announced(entry);
  }
  return views;
}

bool ClusterPlanner::KnowsTooLittle(int index, const std::vector<uint32_t>& missing,
                                    const RoutingTable& table,
                                    const std::vector<HolderView>& views) const {
  const std::map<std::string, std::vector<uint32_t>>& told = shards_[index].holders;
  return std::any_of(missing.begin(), missing.end(), [&](uint32_t item) {
    bool given = false;
    for (size_t i = 0; i < views.size(); ++i) {
      if (static_cast<int>(i) == index || !Gives(views[i], item)) continue;
      const auto known = told.find(table.experts[i].address);
      if (known != told.end() && Contains(known->second, item)) return false;
      given = true;
    }
    return given;
  });
}

absl::StatusOr<Plan> ClusterPlanner::Look(const RoutingTable& table, absl::Time now,
                                          const PlannerOptions& options) {
  if (const absl::Status met = Meet(table); !met.ok()) {
    LogEvent(LogLevel::kError, "no_plan", {{"reason", met.message()}});
    return met;
  }
  const PlannerInput input = MakeInput(table, now);
  if (input.shards.empty()) {
    return absl::FailedPreconditionError("no expert-service runs with --experts=none");
  }
  absl::StatusOr<Plan> plan = MakePlan(input, options);
  if (!plan.ok()) {
    LogEvent(LogLevel::kError, "no_plan", {{"reason", plan.status().message()}});
    return plan;
  }
  if (plan->n_loads > 0) {
    LogEvent(LogLevel::kInfo, "planned",
             {{"shards", input.shards.size()},
              {"loads", plan->n_loads},
              {"uncovered", plan->uncovered.size()},
              {"imbalance", plan->imbalance}});
  }
  for (size_t i = 0; i < of_plan_.size(); ++i) {
    shards_[of_plan_[i]].target = plan->experts[i];
    shards_[of_plan_[i]].planned = true;
  }
  {
    absl::MutexLock lock(&mu_);
    status_.imbalance = plan->imbalance;
    status_.n_uncovered = plan->uncovered.size();
    status_.n_moves += static_cast<uint64_t>(plan->n_loads);
  }
  const std::vector<ShardView> views = Views(table);
  Tell(table, views, assigner_.Next(views, *plan, now), now);
  return plan;
}

// What an assignment changes at a shard, for the log.
void ClusterPlanner::LogAssignment(const std::string& shard, uint64_t epoch,
                                   const std::vector<uint32_t>& announced,
                                   const std::vector<uint32_t>& experts) {
  LogEvent(LogLevel::kInfo, "assigning",
           {{"shard", shard},
            {"epoch", epoch},
            {"experts", experts.size()},
            {"loads", Without(experts, announced).size()},
            {"drops", Without(announced, experts).size()}});
}

void ClusterPlanner::Tell(const RoutingTable& table, const std::vector<ShardView>& views,
                          std::vector<std::optional<std::vector<uint32_t>>> next, absl::Time now) {
  const std::vector<HolderView> holder_views = HolderViews(table);
  std::vector<Message> messages;
  for (size_t i = 0; i < next.size(); ++i) {
    Shard& shard = shards_[of_plan_[i]];
    if (!next[i].has_value()) continue;
    const std::vector<uint32_t> missing = Without(*next[i], views[i].announced);
    const bool known = shard.was_told ? shard.told == *next[i] : views[i].announced == *next[i];
    // Told again at most once per interval: others may be loading one expert after another.
    const bool needs_holders = !table.experts[of_plan_[i]].shard.has_checkpoint() &&
                               now >= shard.told_at + options_.interval &&
                               KnowsTooLittle(of_plan_[i], missing, table, holder_views);
    if (known && !needs_holders) continue;
    const std::vector<Holder> holders = FindHolders(holder_views, of_plan_[i], missing);
    ++shard.epoch;  // each shard has a count of its own: one that tells a wrong one harms no other
    LogAssignment(shard.address, shard.epoch, views[i].announced, *next[i]);
    const internal::v1::AssignRequest request =
        MakeRequest(shard.epoch, *next[i], holders, table, sizes_.n_experts);
    shard.holders = ByAddress(holders, table);
    Message& message = messages.emplace_back();
    message.shard = of_plan_[i];
    message.experts = *std::move(next[i]);
    message.stream = streams_.Open(shard.channel, kAssign);
    // A failure comes back as kBroken.
    (void)message.stream->SendLast(WriteMessage(request), messages.size());
    shard.was_told = false;
    shard.told_at = now;
  }
  if (!messages.empty()) AwaitAnswers(&messages);
}

void ClusterPlanner::CountAttempt(absl::StatusCode code, absl::Duration time) const {
  if (options_.channels.traffic != nullptr) {
    options_.channels.traffic->OnAttempt(kAssign, code, time);
  }
}

void ClusterPlanner::AwaitAnswers(std::vector<Message>* messages) {
  const absl::Time began = absl::Now(), deadline = began + options_.answer_timeout;
  size_t n_open = messages->size();
  StreamEvent event;
  while (n_open > 0 && streams_.WaitAny(deadline, &event)) {
    if (event.kind == StreamEvent::Kind::kWoken) continue;
    const auto message = std::find_if(messages->begin(), messages->end(),
                                      [&](const Message& m) { return m.stream == event.stream; });
    Shard& shard = shards_[message->shard];
    if (event.kind == StreamEvent::Kind::kAnswer) {
      shard.told = std::move(message->experts);
      shard.was_told = true;
    } else {
      LogEvent(LogLevel::kWarning, "assignment_refused",
               {{"shard", directory_->Table()->experts[message->shard].address},
                {"reason", event.status.message()}});
    }
    CountAttempt(
        event.kind == StreamEvent::Kind::kAnswer ? absl::StatusCode::kOk : event.status.code(),
        absl::Now() - began);
    streams_.Close(std::exchange(message->stream, nullptr));
    --n_open;
  }
  for (Message& message : *messages) {
    if (message.stream == nullptr) continue;
    CountAttempt(absl::StatusCode::kDeadlineExceeded, absl::Now() - began);
    streams_.Close(message.stream);
  }
}

}  // namespace gatefold
