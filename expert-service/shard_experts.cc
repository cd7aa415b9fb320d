#include "expert-service/shard_experts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "expert-service/expert_transfer.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/stream_client.h"

namespace gatefold {
namespace {

constexpr absl::Duration kStopLook = absl::Milliseconds(100);
constexpr absl::Duration kFirstRest = absl::Seconds(5);
constexpr absl::Duration kLastRest = absl::Minutes(1);
// Before those who are busy are asked again.
constexpr absl::Duration kFirstBusyWait = absl::Milliseconds(50);
constexpr absl::Duration kLastBusyWait = absl::Milliseconds(400);

constexpr absl::string_view kBusy = "busy";  // a reason

// What an attempt failed of, as the metric says it.
absl::string_view ReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
      return "digest";
    case absl::StatusCode::kInvalidArgument:
      return "malformed";
    case absl::StatusCode::kDeadlineExceeded:
      return "timeout";
    case absl::StatusCode::kResourceExhausted:
      return kBusy;
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    default:
      return "refused";
  }
}

}  // namespace

// One expert from one shard.
struct ShardExperts::Transfer {
  const ExpertCatalog& catalog;
  const ExpertLayout layout;
  Buffer image;
  bool has_header = false;
  uint64_t received = 0;
  ExpertDigest digest{layout};

  absl::Status Take(const grpc::ByteBuffer& message);
  absl::Status Finish(const std::string& wanted);
  // What the peer, or gRPC in its place, says instead of going on.
  absl::Status Broken(const absl::Status& status) const;
};

absl::Status ShardExperts::Transfer::Take(const grpc::ByteBuffer& message) {
  internal::v1::FetchExpertResponse response;
  FramePayload piece;
  GF_RETURN_IF_ERROR(ReadFrame(message, &response, &piece));
  if (!has_header) {
    GF_RETURN_IF_ERROR(CheckFetchHeader(response, catalog, layout));
    if (!piece.empty())
      return absl::InvalidArgumentError("the first message has bytes of the image");
    image = Buffer(layout.size_bytes());
    has_header = true;
    return absl::OkStatus();
  }
  if (piece.empty() || piece.size_bytes() > kMaxPieceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a message has ", piece.size_bytes(),
                                                   " bytes of the image, must have 1 to ",
                                                   kMaxPieceBytes));
  }
  if (piece.size_bytes() > layout.size_bytes() - received) {
    return absl::InvalidArgumentError(
        absl::StrCat("the image has more than ", layout.size_bytes(), " bytes"));
  }
  char* const to = image.as<char>() + received;
  piece.CopyTo(to);
  digest.Add(to, piece.size_bytes());
  received += piece.size_bytes();
  return absl::OkStatus();
}

absl::Status ShardExperts::Transfer::Finish(const std::string& wanted) {
  if (!has_header || received != layout.size_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the image has ", received, " bytes, must have ", layout.size_bytes()));
  }
  const std::string got = digest.FinishHex();
  if (got == wanted) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the image has digest ", got, ", the manifest wants ", wanted));
}

absl::Status ShardExperts::Transfer::Broken(const absl::Status& status) const {
  // gRPC's word for a message past its limit.
  if (absl::IsResourceExhausted(status) && has_header)
    return absl::InvalidArgumentError(status.message());
  // These two codes are for what is found here.
  const bool ours = absl::IsInvalidArgument(status) || absl::IsDataLoss(status);
  return ours ? absl::UnknownError(status.message()) : status;
}

ShardExperts::ShardExperts(const ExpertCatalog* catalog, ExpertBackend* backend,
                           LoadObserver* observer, const Options& options)
    : catalog_(catalog), backend_(backend), observer_(observer), options_(options) {}

void ShardExperts::SetHolders(std::vector<ExpertHolder> holders) {
  absl::MutexLock lock(&mu_);
  holders_ = std::move(holders);
  std::set<std::string> named;
  for (const ExpertHolder& holder : holders_) named.insert(holder.address);
  const auto forgotten = [&named](const auto& entry) { return !named.contains(entry.first); };
  std::erase_if(channels_, forgotten);
  std::erase_if(rests_, forgotten);
}

ShardExperts::Found ShardExperts::HoldersOf(ExpertId id) const {
  Found found;
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mu_);
  for (const ExpertHolder& holder : holders_) {
    if (!std::binary_search(holder.experts.begin(), holder.experts.end(), id)) continue;
    const auto rest = rests_.find(holder.address);
    if (rest != rests_.end() && now < rest->second.until) {
      ++found.n_resting;
    } else {
      found.awake.push_back(holder.address);
    }
  }
  return found;
}

void ShardExperts::NoteOutcome(const std::string& address, const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (status.ok()) {
    rests_.erase(address);
    return;
  }
  // A word of refusal is cheap, and may be about one expert.
  const absl::string_view reason = ReasonOf(status);
  if (reason == kBusy || reason == "refused") return;
  Rest& rest = rests_[address];
  const absl::Time now = absl::Now();
  if (now < rest.until) return;  // several transfers failed together
  rest.length = std::clamp(2 * rest.length, kFirstRest, kLastRest);
  rest.until = now + rest.length;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ShardExperts::ChannelTo(const std::string& address) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<grpc::Channel>& channel = channels_[address];
  if (channel == nullptr) {
    ChannelOptions channels = options_.channels;
    channels.max_received_bytes = kMaxFetchMessageBytes;
    GF_ASSIGN_OR_RETURN(channel, MakeChannel(address, ChannelKind::kBulk, channels));
  }
  return channel;
}

absl::StatusOr<LoadedExpert> ShardExperts::Get(ExpertId id, ThreadPool* threads) {
  const absl::Time patient_until = absl::Now() + options_.busy_patience;
  absl::Duration wait = kFirstBusyWait;
  Attempts attempts;
  absl::StatusOr<Buffer> image = AskAll(id, &attempts);
  while (absl::IsUnavailable(image.status()) && !attempts.busy.empty() && !stopped_ &&
         absl::Now() < patient_until) {
    absl::SleepFor(wait);
    wait = std::min(2 * wait, kLastBusyWait);
    image = AskAll(id, &attempts);
  }
  if (stopped_) return absl::CancelledError("this shard is ending");
  const std::string name = absl::StrCat("expert ", id.expert, " of layer ", id.layer);
  if (!image.ok()) return Annotate(image.status(), name);
  const ExpertLayout layout = catalog_->Layout(id.layer, id.expert);
  LoadedExpert loaded;
  loaded.from = LoadedFrom::kShard;
  loaded.bytes = layout.size_bytes();
  auto held = backend_->Load(layout.View(image->as<char>()), threads);
  if (!held.ok()) return Annotate(held.status(), name);
  loaded.expert = *std::move(held);
  return loaded;
}

absl::StatusOr<Buffer> ShardExperts::AskAll(ExpertId id, Attempts* attempts) {
  const Found holders = HoldersOf(id);
  const size_t n_holders = holders.awake.size() + holders.n_resting;
  if (n_holders == 0)
    return absl::NotFoundError(
        "no shard is known that gives it; from quantised ones and devices it cannot be had");
  const std::set<std::string> busy_before = std::exchange(attempts->busy, {});
  for (const std::string& address : holders.awake) {
    if (attempts->failed.contains(address)) continue;
    absl::StatusOr<Buffer> image = Fetch(address, id);
    if (stopped_) return absl::CancelledError("this shard is ending");
    NoteOutcome(address, image.status());
    if (image.ok()) return image;
    attempts->last = image.status();
    const absl::string_view reason = ReasonOf(attempts->last);
    (reason == kBusy ? attempts->busy : attempts->failed).insert(address);
    if (reason == kBusy && busy_before.contains(address)) continue;  // told already
    LogEvent(LogLevel::kWarning, "expert_not_fetched",
             {{"shard", address},
              {"layer", id.layer},
              {"expert", id.expert},
              {"because", reason},
              {"error", attempts->last.message()}});
    if (observer_ != nullptr) observer_->OnLoadFailed(reason);
  }
  return absl::UnavailableError(
      absl::StrCat("none of ", n_holders, " shards gave it; the last: ", attempts->last.message()));
}

absl::StatusOr<Buffer> ShardExperts::Fetch(const std::string& address, ExpertId id) {
  GF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ChannelTo(address));
  Transfer transfer{*catalog_, catalog_->Layout(id.layer, id.expert)};
  StreamSet streams(WaitPolicy::Block());
  StreamSet::OpenOptions open;
  open.deadline = absl::Now() + TransferLimit(transfer.layout.size_bytes());
  PeerStream* const stream = streams.Open(channel, kFetchMethod, open);
  // A failure comes back as kBroken.
  (void)stream->SendLast(WriteMessage(MakeFetchRequest(*catalog_, id)));
  absl::Time deadline = absl::Now() + options_.piece_timeout;
  while (!stopped_) {
    StreamEvent event;
    if (!streams.WaitAny(std::min(deadline, absl::Now() + kStopLook), &event)) {
      if (absl::Now() < deadline) continue;
      return absl::DeadlineExceededError(absl::StrCat("nothing came for ",
                                                      absl::FormatDuration(options_.piece_timeout),
                                                      " after ", transfer.received, " bytes"));
    }
    if (event.kind == StreamEvent::Kind::kAnswer) {
      GF_RETURN_IF_ERROR(transfer.Take(event.answer));
      deadline = absl::Now() + options_.piece_timeout;
      continue;
    }
    if (!event.status.ok()) return transfer.Broken(event.status);
    GF_RETURN_IF_ERROR(transfer.Finish(*catalog_->Digest(id.layer, id.expert)));
    return std::move(transfer.image);
  }
  return absl::CancelledError("this shard is ending");
}

}  // namespace gatefold
