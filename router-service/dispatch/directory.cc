#include "router-service/dispatch/directory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/traffic.h"
#include "gatefold/worker/worker.h"
#include "google/protobuf/util/message_differencer.h"

namespace gatefold {
namespace {

constexpr size_t kMaxDescriptionBytes = size_t{16} << 20;
constexpr size_t kMaxNameBytes = 256, kMaxDetailBytes = 1024;
constexpr char kDescribeExpert[] = "/gatefold.internal.v1.ExpertService/Describe";
constexpr char kWatchExpert[] = "/gatefold.internal.v1.ExpertService/Watch";
constexpr char kDescribeAttention[] = "/gatefold.internal.v1.AttentionService/Describe";

// What workers say is shown to people, on terminals, too.
std::string Tidy(absl::string_view text, size_t max_bytes) {
  std::string tidy(text.substr(0, max_bytes));
  std::replace_if(
      tidy.begin(), tidy.end(), [](char c) { return !absl::ascii_isprint(c); }, '?');
  return tidy;
}

void Tidy(internal::v1::WorkerDescription* worker) {
  for (std::string* text :
       {worker->mutable_name(), worker->mutable_backend(), worker->mutable_isa(),
        worker->mutable_version(), worker->mutable_model_fingerprint(),
        worker->mutable_config_fingerprint(), worker->mutable_metrics_address(),
        worker->mutable_node(), worker->mutable_zone()}) {
    *text = Tidy(*text, kMaxNameBytes);
  }
}

// More ranges than the model has experts say nothing more, and would be gone through with every
// change.
void TakeAtMost(int max_ranges, WorkerEntry* entry) {
  if (entry->shard.held_size() <= max_ranges) return;
  entry->state = WorkerEntry::State::kMismatch;
  entry->detail = absl::StrCat("size of held is ", entry->shard.held_size(), ", must be at most ",
                               max_ranges, ", the experts of the model");
  entry->shard.clear_held();
}

// Decides whether a worker that answered may serve with this router. `numerics`: of the workers of
// its kind; the first that may serve decides it.
void Judge(const ClusterIdentity& identity, Directory::Numerics* numerics, WorkerEntry* entry) {
  const internal::v1::WorkerDescription& worker = entry->worker;
  const bool same_class =
      numerics->numerics_class == 0 || numerics->numerics_class == worker.numerics_class();
  entry->state = WorkerEntry::State::kMismatch;
  if (worker.wire_version() != kWireVersion) {
    entry->detail = absl::StrCat("speaks wire version ", worker.wire_version(),
                                 ", this router speaks ", kWireVersion);
  } else if (worker.config_fingerprint() != identity.config_fingerprint ||
             worker.model_fingerprint() != identity.model_fingerprint) {
    entry->detail = absl::StrCat("CHECKPOINT_MISMATCH: serves model ", worker.model_fingerprint(),
                                 ", this router serves ", identity.model_fingerprint);
  } else if (!same_class && !identity.allow_mixed_numerics) {
    entry->detail = absl::StrCat(
        "computes as \"", worker.isa(), "\", in another numerics class than \"", numerics->isa,
        "\", which this router found first and keeps until it restarts; --allow-mixed-numerics would "
        "use both");
  } else if (worker.draining()) {
    entry->state = WorkerEntry::State::kDraining;
    entry->detail.clear();
  } else {
    *numerics = {worker.numerics_class(), worker.isa()};
    entry->state = worker.ready() ? WorkerEntry::State::kReady : WorkerEntry::State::kLoading;
    entry->detail.clear();
  }
}

// A pod may have an address of each family, and an operator may know a host by two names. Used as
// two workers, a process would be a replica of itself. `others`: of its kind, itself at `index`.
void TakeForTwin(const std::vector<WorkerEntry>& others, int index, WorkerEntry* entry) {
  const uint64_t incarnation = entry->worker.incarnation();
  if (!entry->in_use() || incarnation == 0) return;
  for (size_t i = 0; i < others.size(); ++i) {
    const WorkerEntry& other = others[i];
    if (static_cast<int>(i) == index || !other.in_use()) continue;
    if (other.worker.incarnation() != incarnation) continue;
    entry->state = WorkerEntry::State::kMismatch;
    entry->detail = absl::StrCat("the same process as ", other.address);
    entry->twin = true;
    return;
  }
}

bool SameEntry(const WorkerEntry& a, const WorkerEntry& b) {
  using google::protobuf::util::MessageDifferencer;
  return a.state == b.state && a.detail == b.detail && a.twin == b.twin && a.gone == b.gone &&
         MessageDifferencer::Equals(a.worker, b.worker) &&
         MessageDifferencer::Equals(a.shard, b.shard) &&
         MessageDifferencer::Equals(a.attention, b.attention);
}

// How full an attention-service is changes with every sequence, and nothing is routed by the table
// that was not before.
bool SameRoutes(const WorkerEntry& before, const WorkerEntry& entry) {
  WorkerEntry as_full = before;
  as_full.attention.set_n_kv_blocks_free(entry.attention.n_kv_blocks_free());
  as_full.attention.set_n_sequences(entry.attention.n_sequences());
  return SameEntry(as_full, entry);
}

uint64_t CountHeld(const internal::v1::ExpertShard& shard) {
  uint64_t n = 0;
  for (const internal::v1::ExpertRange& range : shard.held()) n += range.n_experts();
  return n;
}

// False also where the shard was still loading before.
bool SameExperts(const internal::v1::ExpertShard& before, const internal::v1::ExpertShard& after) {
  using google::protobuf::util::MessageDifferencer;
  return before.n_loading() == 0 &&
         std::equal(before.held().begin(), before.held().end(), after.held().begin(),
                    after.held().end(),
                    [](const auto& a, const auto& b) { return MessageDifferencer::Equals(a, b); });
}

}  // namespace

struct Directory::Poll {
  bool expert = false;
  int index = 0;  // among those of its kind
  std::string address;
  bool named = true;   // by the options or the last discovery
  bool fixed = false;  // by the options
  std::shared_ptr<grpc::Channel> channel;
  PeerStream* stream = nullptr;               // while a question is open
  PeerStream* watch = nullptr;                // on which an expert-service tells of changes
  absl::Time watched = absl::InfinitePast();  // when that was opened
  absl::Time asked;
  absl::Time due = absl::InfinitePast();
  bool serves = false;
  bool reached = false;  // by the last question
  // When it last said how long it has computed.
  absl::Time busy_at = absl::InfinitePast();
  uint64_t busy_incarnation = 0;
  uint64_t busy_nanos = 0;
};

absl::StatusOr<std::unique_ptr<Directory>> Directory::Start(const Options& options,
                                                            const ClusterIdentity& identity) {
  std::unique_ptr<Directory> directory(new Directory(options, identity));
  for (const std::string& address : options.expert_addresses) {
    GF_RETURN_IF_ERROR(directory->Add(address, true, /*fixed=*/true));
  }
  for (const std::string& address : options.attention_addresses) {
    GF_RETURN_IF_ERROR(directory->Add(address, false, /*fixed=*/true));
  }
  directory->thread_ = std::thread([d = directory.get()] { d->Run(); });
  return directory;
}

absl::Status Directory::Add(const std::string& address, bool expert, bool fixed) {
  auto poll = std::make_unique<Poll>();
  GF_ASSIGN_OR_RETURN(poll->channel, MakeChannel(address, ChannelKind::kDecode, options_.channels));
  poll->expert = expert;
  poll->address = address;
  poll->fixed = fixed;
  auto table = std::make_shared<RoutingTable>(*Table());
  std::vector<WorkerEntry>& entries = expert ? table->experts : table->attention;
  WorkerEntry entry;
  entry.address = address;
  entry.detail = "not asked yet";
  if (static_cast<int>(entries.size()) < kMaxWorkers) {
    poll->index = static_cast<int>(entries.size());
    entries.push_back(std::move(entry));
    polls_.push_back(std::move(poll));
  } else if (Poll* gone = FindGone(expert); gone != nullptr) {
    poll->index = gone->index;
    entries[gone->index] = std::move(entry);
    if (gone->stream != nullptr) streams_.Close(gone->stream);
    if (gone->watch != nullptr) streams_.Close(gone->watch);
    *gone = std::move(*poll);
  } else {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", kMaxWorkers, " workers of a kind; no more can be used"));
  }
  ++table->version;
  table->FindHolders(identity_.n_layers);
  absl::MutexLock lock(&mu_);
  rows_.resize(table->experts.size());
  work_.resize(table->experts.size());
  busy_experts_.resize(table->experts.size());
  busy_attention_.resize(table->attention.size());
  table_ = std::move(table);
  return absl::OkStatus();
}

Directory::Poll* Directory::FindGone(bool expert) {
  for (const auto& poll : polls_) {
    if (poll->expert == expert && !poll->named && !poll->reached) return poll.get();
  }
  return nullptr;
}

void Directory::SetDiscovered(std::vector<std::string> experts,
                              std::vector<std::string> attention) {
  {
    absl::MutexLock lock(&mu_);
    discovered_ = Discovered{std::move(experts), std::move(attention)};
  }
  streams_.Wake();
}

void Directory::TakeDiscovered(const std::vector<std::string>& addresses, bool expert) {
  for (const auto& poll : polls_) {
    if (poll->expert != expert || poll->fixed) continue;
    poll->named = std::find(addresses.begin(), addresses.end(), poll->address) != addresses.end();
    if (poll->named && !poll->serves) poll->due = absl::InfinitePast();
  }
  for (const std::string& address : addresses) {
    const bool known = std::any_of(polls_.begin(), polls_.end(), [&](const auto& poll) {
      return poll->expert == expert && poll->named && poll->address == address;
    });
    if (known) continue;
    const absl::Status added = Add(address, expert, /*fixed=*/false);
    if (!added.ok()) {
      LogEvent(LogLevel::kWarning, "worker_not_added",
               {{"worker", address}, {"reason", added.message()}});
    }
  }
}

Directory::Directory(const Options& options, const ClusterIdentity& identity)
    : options_(options), identity_(identity), streams_(WaitPolicy::Block()) {
  // Requests wait for who comes back. (gRPC takes nothing shorter.)
  options_.channels.max_reconnect_backoff = absl::Milliseconds(100);
  auto table = std::make_shared<RoutingTable>();
  table->experts_per_layer = identity_.experts_per_layer;
  table->FindHolders(identity_.n_layers);
  absl::MutexLock lock(&mu_);
  table_ = std::move(table);
}

Directory::~Directory() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  streams_.Wake();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const RoutingTable> Directory::Table() const {
  absl::MutexLock lock(&mu_);
  return table_;
}

void Directory::SuspectExpert(int index) {
  {
    absl::MutexLock lock(&mu_);
    suspects_.emplace_back(true, index);
  }
  streams_.Wake();
}

void Directory::SuspectAttention(int index) {
  {
    absl::MutexLock lock(&mu_);
    suspects_.emplace_back(false, index);
  }
  streams_.Wake();
}

bool Directory::Await(const std::function<bool(const RoutingTable&)>& ready,
                      absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  const auto holds = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ready(*table_); };
  return mu_.AwaitWithDeadline(absl::Condition(&holds), deadline);
}

void Directory::Run() {
  while (true) {
    std::vector<std::pair<bool, int>> suspects;
    std::optional<Discovered> discovered;
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      suspects.swap(suspects_);
      discovered.swap(discovered_);
    }
    if (discovered.has_value()) {
      TakeDiscovered(discovered->experts, true);
      TakeDiscovered(discovered->attention, false);
    }
    const absl::Time now = absl::Now();
    for (const auto& poll : polls_) {
      const std::pair<bool, int> worker = {poll->expert, poll->index};
      if (std::count(suspects.begin(), suspects.end(), worker) > 0) poll->due = now;
    }
    absl::Time wake = absl::InfiniteFuture();
    for (const auto& poll : polls_) {
      if (poll->stream != nullptr && now >= poll->asked + options_.answer_timeout) {
        streams_.Close(std::exchange(poll->stream, nullptr));
        CountDescribe(*poll, absl::StatusCode::kDeadlineExceeded);
        Take(poll.get(), absl::DeadlineExceededError("does not answer"));
      }
      if (poll->stream == nullptr && now >= poll->due) Ask(poll.get(), now);
      wake = std::min(wake,
                      poll->stream != nullptr ? poll->asked + options_.answer_timeout : poll->due);
    }
    StreamEvent event;
    if (!streams_.WaitAny(wake, &event) || event.kind == StreamEvent::Kind::kWoken) continue;
    OnEvent(std::move(event));
  }
}

void Directory::OnEvent(StreamEvent event) {
  Poll* poll = static_cast<Poll*>(event.stream->user_data);
  const bool answered = event.kind == StreamEvent::Kind::kAnswer;
  if (event.stream == poll->watch) {
    if (answered) return TakeAnnouncement(poll, event.answer);
    streams_.Close(std::exchange(poll->watch, nullptr));
    poll->due = absl::InfinitePast();  // it may be gone: ask at once
    return;
  }
  streams_.Close(std::exchange(poll->stream, nullptr));
  // The answer is all that was wanted: its stream is closed before gRPC would say OK.
  CountDescribe(*poll, answered ? absl::StatusCode::kOk : event.status.code());
  if (answered) {
    Take(poll, std::move(event.answer));
  } else {
    Take(poll, event.status.ok() ? absl::InternalError("ended without an answer") : event.status);
  }
}

void Directory::CountDescribe(const Poll& poll, absl::StatusCode code) const {
  if (options_.channels.traffic == nullptr) return;
  options_.channels.traffic->OnAttempt(poll.expert ? kDescribeExpert : kDescribeAttention, code,
                                       absl::Now() - poll.asked);
}

void Directory::Ask(Poll* poll, absl::Time now) {
  poll->asked = now;
  poll->stream = streams_.Open(poll->channel, poll->expert ? kDescribeExpert : kDescribeAttention);
  poll->stream->user_data = poll;
  // A failure comes back as kBroken.
  (void)poll->stream->SendLast(WriteMessage(internal::v1::ExpertServiceDescribeRequest()));
}

void Directory::Take(Poll* poll, const absl::StatusOr<grpc::ByteBuffer>& answer) {
  WorkerEntry entry;
  entry.address = poll->address;
  absl::Status status = answer.status();
  if (answer.ok() && poll->expert) {
    internal::v1::ExpertServiceDescribeResponse response;
    status = ReadMessage(*answer, kMaxDescriptionBytes, &response);
    TakeShard(poll, response.mutable_shard(), &entry);
  } else if (answer.ok()) {
    status = ReadMessage(*answer, kMaxDescriptionBytes, &entry.attention);
    entry.worker = entry.attention.worker();
    entry.attention.clear_worker();
  }
  TakeEntry(poll, status, std::move(entry));
  if (!poll->expert) return;
  if (!poll->reached && poll->watch != nullptr) {
    streams_.Close(std::exchange(poll->watch, nullptr));
  } else if (poll->reached && poll->watch == nullptr &&
             absl::Now() >= poll->watched + options_.interval) {
    poll->watched = absl::Now();
    StreamSet::OpenOptions watch;
    if (const auto& traffic = options_.channels.traffic) {
      watch.on_end = [traffic](absl::StatusCode code, absl::Duration time) {
        traffic->OnAttempt(kWatchExpert, code, time);
      };
    }
    poll->watch = streams_.Open(poll->channel, kWatchExpert, watch);
    poll->watch->user_data = poll;
    (void)poll->watch->SendLast(WriteMessage(internal::v1::WatchRequest()));
  }
}

void Directory::TakeAnnouncement(Poll* poll, const grpc::ByteBuffer& answer) {
  internal::v1::WatchResponse response;
  WorkerEntry entry;
  entry.address = poll->address;
  // What cannot be read is asked for.
  if (!ReadMessage(answer, kMaxDescriptionBytes, &response).ok()) return;
  TakeShard(poll, response.mutable_shard(), &entry);
  TakeEntry(poll, absl::OkStatus(), std::move(entry));
}

void Directory::TakeShard(Poll* poll, internal::v1::ExpertShard* shard, WorkerEntry* entry) {
  entry->shard = std::move(*shard);
  entry->worker = entry->shard.worker();
  entry->shard.clear_worker();
  ExpertRows rows = TakeRows(&entry->shard);
  const ShardWork work = {entry->worker.incarnation(), entry->shard.n_rows_computed(),
                          absl::Nanoseconds(entry->shard.busy_nanos())};
  entry->shard.clear_n_rows_computed();
  absl::MutexLock lock(&mu_);
  rows_[poll->index] = std::move(rows);
  work_[poll->index] = work;
}

void Directory::TakeEntry(Poll* poll, const absl::Status& status, WorkerEntry entry) {
  if (status.ok()) {
    Tidy(&entry.worker);
    {
      absl::MutexLock lock(&mu_);
      Judge(identity_, &numerics_[poll->expert], &entry);
    }
    TakeAtMost(identity_.n_layers * identity_.experts_per_layer, &entry);
    const std::shared_ptr<const RoutingTable> table = Table();
    TakeForTwin(poll->expert ? table->experts : table->attention, poll->index, &entry);
    NoteBusy(poll, &entry);
  } else {
    entry.detail = Tidy(status.message(), kMaxDetailBytes);
  }
  poll->serves = entry.state == WorkerEntry::State::kReady && entry.shard.n_loading() == 0;
  poll->reached = status.ok();
  // Nothing waits for a twin.
  const bool settled = poll->serves || entry.twin;
  poll->due = absl::Now() + (settled ? options_.interval : options_.starting_interval);
  entry.gone = !poll->named && !poll->reached;
  if (entry.gone) poll->due = absl::InfiniteFuture();
  Update(*poll, std::move(entry));
}

Directory::ExpertRows Directory::TakeRows(internal::v1::ExpertShard* shard) const {
  ExpertRows rows;
  int n = 0;
  for (const internal::v1::ExpertRange& range : shard->held()) {
    for (uint64_t e = range.first_expert(); e < uint64_t{range.first_expert()} + range.n_experts();
         ++e) {
      if (n >= shard->n_rows_size()) break;  // it says less than it holds
      const uint64_t count = shard->n_rows(n++);
      if (range.layer() < static_cast<uint32_t>(identity_.n_layers) &&
          e < static_cast<uint64_t>(identity_.experts_per_layer)) {
        rows.emplace_back(static_cast<uint32_t>(range.layer() * identity_.experts_per_layer + e),
                          count);
      }
    }
  }
  shard->clear_n_rows();
  return rows;
}

void Directory::NoteBusy(Poll* poll, WorkerEntry* entry) {
  const absl::Time now = absl::Now();
  const uint64_t incarnation = entry->worker.incarnation();
  const uint64_t busy_nanos =
      poll->expert ? entry->shard.busy_nanos() : entry->attention.busy_nanos();
  entry->shard.clear_busy_nanos();
  entry->attention.clear_busy_nanos();
  const bool follows = incarnation == poll->busy_incarnation && busy_nanos >= poll->busy_nanos;
  // While it loads it is asked so often that shares would say nothing.
  if (follows && now - poll->busy_at < options_.interval / 2) return;
  double ratio = 0;
  if (follows && now > poll->busy_at) {
    const absl::Duration busy =
        absl::Nanoseconds(static_cast<int64_t>(busy_nanos - poll->busy_nanos));
    ratio = std::min(1.0, absl::FDivDuration(busy, now - poll->busy_at));
  }
  poll->busy_at = now;
  poll->busy_incarnation = incarnation;
  poll->busy_nanos = busy_nanos;
  absl::MutexLock lock(&mu_);
  (poll->expert ? busy_experts_ : busy_attention_)[poll->index] = ratio;
}

Directory::Numerics Directory::ExpertNumerics() const {
  absl::MutexLock lock(&mu_);
  return numerics_[true];
}

double Directory::BusyRatio(bool expert, int index) const {
  absl::MutexLock lock(&mu_);
  const std::vector<double>& ratios = expert ? busy_experts_ : busy_attention_;
  return index < static_cast<int>(ratios.size()) ? ratios[index] : 0;
}

Directory::ExpertRows Directory::RowsOfShard(int index) const {
  absl::MutexLock lock(&mu_);
  return rows_[index];
}

Directory::ShardWork Directory::WorkOfShard(int index) const {
  absl::MutexLock lock(&mu_);
  return work_[index];
}

void Directory::Update(const Poll& poll, WorkerEntry entry) {
  const std::shared_ptr<const RoutingTable> old = Table();
  const WorkerEntry& before = (poll.expert ? old->experts : old->attention)[poll.index];
  if (SameEntry(before, entry)) return;
  // A process may end and another be there before anybody looked again.
  const bool restarted = before.state == entry.state && before.worker.incarnation() != 0 &&
                         before.worker.incarnation() != entry.worker.incarnation();
  if (before.state != entry.state || restarted) {
    LogEvent(LogLevel::kInfo, "worker_state",
             {{"worker", entry.address},
              {"kind", poll.expert ? "expert" : "attention"},
              {"from", WorkerStateName(before.state)},
              {"to", WorkerStateName(entry.state)},
              {"detail", restarted ? "restarted" : entry.detail}});
  }
  // Once per change, not for every expert on the way.
  if (poll.expert && entry.shard.n_loading() == 0 && !SameExperts(before.shard, entry.shard)) {
    LogEvent(LogLevel::kInfo, "worker_holds",
             {{"worker", entry.address},
              {"from", CountHeld(before.shard)},
              {"to", CountHeld(entry.shard)},
              {"bytes", entry.shard.loaded_bytes()},
              {"epoch", entry.shard.epoch()}});
  }
  const bool same_routes = SameRoutes(before, entry);
  auto table = std::make_shared<RoutingTable>(*old);
  (poll.expert ? table->experts : table->attention)[poll.index] = std::move(entry);
  if (!same_routes) {
    ++table->version;
    table->FindHolders(identity_.n_layers);
  }
  absl::MutexLock lock(&mu_);
  table_ = std::move(table);
}

}  // namespace gatefold
