#include "tests/fault/stream_load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/status.h"

namespace gatefold {
namespace {

inference::v1::StreamGenerateTextRequest Request(int stream) {
  inference::v1::StreamGenerateTextRequest request;
  inference::v1::GenerateTextRequest* generate = request.mutable_request();
  for (int token : {1, 5 + stream, 9, 20}) {
    generate->mutable_prompt()->mutable_token_ids()->add_ids(token);
  }
  generate->mutable_config()->set_max_output_tokens(StreamLoad::kOutputTokens);
  generate->mutable_config()->set_temperature(1);
  generate->mutable_config()->set_seed(static_cast<uint64_t>(stream));
  generate->mutable_config()->set_ignore_eos(true);
  generate->mutable_output()->set_token_ids(true);
  return request;
}

// Calls `on_token` for each; false stops.
template <typename OnToken>
absl::StatusOr<std::vector<int32_t>> Generate(Client* client, int stream, OnToken on_token) {
  grpc::ClientContext context;
  auto reader = client->stub()->StreamGenerateText(&context, Request(stream));
  std::vector<int32_t> tokens;
  inference::v1::StreamGenerateTextResponse event;
  while (reader->Read(&event)) {
    for (int32_t token : event.delta().token_ids()) {
      tokens.push_back(token);
      if (!on_token()) context.TryCancel();
    }
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return FromGrpcStatus(status);
  return tokens;
}

}  // namespace

absl::StatusOr<std::vector<std::vector<int32_t>>> StreamLoad::QuietTokens(
    const std::shared_ptr<grpc::Channel>& channel) {
  Client client(channel);
  std::vector<std::vector<int32_t>> quiet;
  for (int i = 0; i < kStreams; ++i) {
    GF_ASSIGN_OR_RETURN(quiet.emplace_back(), Generate(&client, i, [] { return true; }));
    if (quiet.back().size() != kOutputTokens) return absl::InternalError("the quiet run is short");
  }
  return quiet;
}

StreamLoad::StreamLoad(const std::shared_ptr<grpc::Channel>& channel,
                       std::vector<std::vector<int32_t>> quiet)
    : client_(channel), quiet_(std::move(quiet)) {
  {
    absl::MutexLock lock(&mu_);
    streams_.resize(kStreams);
  }
  for (int i = 0; i < kStreams; ++i) threads_.emplace_back([this, i] { Run(i); });
  AwaitTokens(1);
}

void StreamLoad::Stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void StreamLoad::Run(int index) {
  while (!stopping_) {
    const auto tokens = Generate(&client_, index, [&] {
      NoteToken(index);
      return !stopping_;
    });
    {
      absl::MutexLock lock(&mu_);
      streams_[index].last_token = absl::InfinitePast();
    }
    if (stopping_) return;
    if (!tokens.ok()) {
      NoteError(absl::StrCat("stream ", index, ": ", tokens.status().ToString()));
    } else if (*tokens != quiet_[index]) {
      NoteError(absl::StrCat("stream ", index, " has other tokens than in the quiet run"));
    }
    ++n_answers_;
  }
}

void StreamLoad::NoteToken(int index) {
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mu_);
  Stream& stream = streams_[index];
  if (stream.last_token != absl::InfinitePast()) pauses_.push_back(now - stream.last_token);
  stream.last_token = now;
  ++stream.n_tokens;
}

void StreamLoad::NoteError(const std::string& error) {
  absl::MutexLock lock(&mu_);
  if (errors_.size() < 5) errors_.push_back(error);
}

bool StreamLoad::AwaitTokens(int n) {
  absl::MutexLock lock(&mu_);
  std::vector<int> until;
  for (const Stream& stream : streams_) until.push_back(stream.n_tokens + n);
  const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (size_t i = 0; i < until.size(); ++i) {
      if (streams_[i].n_tokens < until[i]) return false;
    }
    return true;
  };
  return mu_.AwaitWithTimeout(absl::Condition(&reached), absl::Minutes(1));
}

StreamLoad::Pauses StreamLoad::TakePauses() {
  std::vector<absl::Duration> all;
  {
    absl::MutexLock lock(&mu_);
    all = std::exchange(pauses_, {});
    for (const Stream& stream : streams_) {
      if (stream.last_token != absl::InfinitePast()) {
        all.push_back(absl::Now() - stream.last_token);
      }
    }
  }
  Pauses pauses;
  pauses.n_tokens = static_cast<int>(all.size());
  if (all.empty()) return pauses;
  std::sort(all.begin(), all.end());
  pauses.p50 = all[all.size() / 2];
  pauses.p99 = all[all.size() * 99 / 100];
  pauses.longest = all.back();
  return pauses;
}

std::string StreamLoad::Errors() const {
  absl::MutexLock lock(&mu_);
  return absl::StrJoin(errors_, "\n");
}

std::string ToString(const StreamLoad::Pauses& pauses) {
  return absl::StrFormat("p50 %.1f ms, p99 %.1f ms, longest %.1f ms, of %d tokens",
                         absl::ToDoubleMilliseconds(pauses.p50),
                         absl::ToDoubleMilliseconds(pauses.p99),
                         absl::ToDoubleMilliseconds(pauses.longest), pauses.n_tokens);
}

}  // namespace gatefold
