#include "tests/fault/stream_load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
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

// Adds to `tokens`, from which it goes on, and calls `on_token` for each; false stops.
template <typename OnToken>
absl::Status Generate(Client* client, int stream, std::vector<int32_t>* tokens, OnToken on_token) {
  grpc::ClientContext context;
  inference::v1::StreamGenerateTextRequest request = Request(stream);
  request.mutable_resume_token_ids()->Assign(tokens->begin(), tokens->end());
  auto reader = client->stub()->StreamGenerateText(&context, request);
  inference::v1::StreamGenerateTextResponse event;
  while (reader->Read(&event)) {
    for (int32_t token : event.delta().token_ids()) {
      tokens->push_back(token);
      if (!on_token()) context.TryCancel();
    }
  }
  return FromGrpcStatus(reader->Finish());
}

// The router is gone, or not there yet. What it says of others is not for another router to mend.
bool RouterIsAway(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsUnavailable(status) &&
         (reason.empty() || reason == kModelLoading || reason == kDraining);
}

}  // namespace

absl::StatusOr<std::vector<std::vector<int32_t>>> StreamLoad::QuietTokens(
    const std::shared_ptr<grpc::Channel>& channel) {
  Client client(channel);
  std::vector<std::vector<int32_t>> quiet;
  for (int i = 0; i < kStreams; ++i) {
    GF_RETURN_IF_ERROR(Generate(&client, i, &quiet.emplace_back(), [] { return true; }));
    if (quiet.back().size() != kOutputTokens) return absl::InternalError("the quiet run is short");
  }
  return quiet;
}

StreamLoad::StreamLoad(const std::vector<std::shared_ptr<grpc::Channel>>& routers,
                       std::vector<std::vector<int32_t>> quiet)
    : quiet_(std::move(quiet)) {
  for (const auto& router : routers) routers_.push_back(std::make_unique<Client>(router));
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

absl::StatusOr<std::vector<int32_t>> StreamLoad::GenerateSomewhere(int index) {
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  const size_t n_routers = routers_.size();
  std::vector<int32_t> tokens;
  for (size_t n = 0;; ++n) {
    const absl::Status status =
        Generate(routers_[(index + n) % n_routers].get(), index, &tokens, [&] {
          NoteToken(index);
          return !stopping_;
        });
    // All may have come before the router went.
    if (status.ok() || tokens.size() == kOutputTokens) return tokens;
    if (stopping_ || n_routers == 1 || !RouterIsAway(status) || absl::Now() > deadline) {
      return status;
    }
    ++n_resumed_;
    if ((n + 1) % n_routers == 0) absl::SleepFor(absl::Milliseconds(10));
  }
}

void StreamLoad::Run(int index) {
  while (!stopping_) {
    const auto tokens = GenerateSomewhere(index);
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
  absl::MutexLock lock(&mu_);
  Pauses all = std::exchange(pauses_, {});
  for (const Stream& stream : streams_) {
    if (stream.last_token != absl::InfinitePast()) all.push_back(absl::Now() - stream.last_token);
  }
  return all;
}

std::string StreamLoad::Errors() const {
  absl::MutexLock lock(&mu_);
  return absl::StrJoin(errors_, "\n");
}

absl::Duration Quantile(StreamLoad::Pauses pauses, double quantile) {
  if (pauses.empty()) return absl::ZeroDuration();
  const size_t rank = std::min(pauses.size() - 1,
                               static_cast<size_t>(quantile * static_cast<double>(pauses.size())));
  std::nth_element(pauses.begin(), pauses.begin() + rank, pauses.end());
  return pauses[rank];
}

std::string ToString(const StreamLoad::Pauses& pauses) {
  const auto ms = [&](double quantile) {
    return absl::ToDoubleMilliseconds(Quantile(pauses, quantile));
  };
  return absl::StrFormat("p50 %.1f ms, p99 %.1f ms, longest %.1f ms, of %d tokens", ms(0.5),
                         ms(0.99), ms(1), pauses.size());
}

}  // namespace gatefold
