#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "router-service/gateway/cluster_admin.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/gateway/model_info.h"
#include "router-service/gateway/serving_stats.h"
#include "router-service/gateway/text_codec.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

// For tests: every byte is a token; 256 is <bos>, 257 <eos>, 258 <turn>, and the ids from 260 on
// have the given texts.
class FakeCodec final : public TextCodec {
 public:
  static constexpr int32_t kBos = 256, kEos = 257, kTurn = 258;
  static constexpr int kVocabSize = 300;

  explicit FakeCodec(std::vector<std::string> words = {}, bool chat = true)
      : words_(std::move(words)), chat_(chat) {}

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const override {
    {
      absl::MutexLock lock(&mu_);
      ++n_encoding_;
      mu_.Await(absl::Condition(&open_));
    }
    if (absl::StrContains(text, "unencodable")) return absl::InvalidArgumentError("cannot encode");
    std::vector<int32_t> ids;
    if (options.add_special) ids.push_back(kBos);
    for (size_t i = 0; i < text.size(); ++i) {
      if (options.parse_special && absl::StartsWith(text.substr(i), "<eos>")) {
        ids.push_back(kEos);
        i += 4;
      } else {
        ids.push_back(static_cast<uint8_t>(text[i]));
      }
    }
    return ids;
  }

  bool has_chat_template() const override { return chat_; }

  absl::StatusOr<std::vector<int32_t>> EncodeConversation(const std::vector<ChatMessage>& messages,
                                                          bool parse_special) const override {
    if (messages.front().role == "tool") return absl::InvalidArgumentError("no tool first");
    std::vector<int32_t> ids = {kBos};
    for (const ChatMessage& message : messages) {
      const std::vector<int32_t> content = *Encode(message.content, {false, parse_special});
      ids.insert(ids.end(), content.begin(), content.end());
      ids.push_back(kTurn);
    }
    return ids;
  }

  std::unique_ptr<Decoder> NewDecoder(absl::Span<const int32_t> /*prompt*/) const override {
    return std::make_unique<ByteDecoder>(this);
  }

  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids) {
      text += id == kEos && !skip_special ? "<eos>" : TokenBytes(id);
    }
    return text;
  }

  std::string TokenBytes(int32_t id) const override {
    if (id < 256) return std::string(1, static_cast<char>(id));
    const size_t word = static_cast<size_t>(id) - 260;
    return id >= 260 && word < words_.size() ? words_[word] : "";
  }

  // Between Close() and Open() Encode waits.
  void Close() { SetOpen(false); }
  void Open() { SetOpen(true); }
  // Until Encode was called n times.
  void AwaitEncoding(int n) {
    const auto there = [this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return n_encoding_ >= n; };
    absl::MutexLock lock(&mu_, absl::Condition(&there));
  }

 private:
  void SetOpen(bool open) {
    absl::MutexLock lock(&mu_);
    open_ = open;
  }

  // Whole characters of valid input; what is left over becomes one U+FFFD.
  class ByteDecoder final : public Decoder {
   public:
    explicit ByteDecoder(const FakeCodec* codec) : codec_(codec) {}
    std::string Push(int32_t id) override {
      held_ += codec_->TokenBytes(id);
      size_t whole = 0;
      while (whole < held_.size()) {
        const auto lead = static_cast<unsigned char>(held_[whole]);
        const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        if (whole + length > held_.size()) break;
        whole += length;
      }
      std::string text = held_.substr(0, whole);
      held_.erase(0, whole);
      return text;
    }
    std::string Finish() override { return held_.empty() ? "" : "\xef\xbf\xbd"; }

   private:
    const FakeCodec* const codec_;
    std::string held_;
  };

  const std::vector<std::string> words_;
  const bool chat_;
  mutable absl::Mutex mu_;
  mutable int n_encoding_ ABSL_GUARDED_BY(mu_) = 0;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
};

// Remembers what was submitted; the test plays the scheduler.
class FakeGenerationService final : public GenerationService {
 public:
  struct Submission {
    GenerationRequest request;
    std::shared_ptr<GenerationListener> listener;
    bool released = false;  // its handle is gone

    // As a step does that has it; once.
    void Begin(int n_cached = 0) {
      if (!std::exchange(begun, true)) listener->OnFirstStep(n_cached);
    }
    bool Token(int32_t id) {
      Begin();
      Sampled sampled;
      sampled.token = id;
      sampled.logprob = -0.5f;
      sampled.top = {{id, -0.5f}, {id + 1, -1.5f}};
      ++n_tokens;
      return listener->OnToken(sampled);
    }
    // Tokens of the text's bytes, until the listener has enough.
    void Say(const std::string& text) {
      for (const char byte : text) {
        if (!Token(static_cast<uint8_t>(byte))) return End(StopCause::kListener);
      }
    }
    void End(StopCause cause, absl::Status status = absl::OkStatus(), int32_t stop_token = -1) {
      if (listener == nullptr) return;
      GenerationEnd end;
      end.cause = cause;
      end.status = std::move(status);
      end.stop_token = stop_token;
      end.n_output_tokens = n_tokens;
      std::exchange(listener, nullptr)->OnEnd(end);
    }
    void Stop() { End(StopCause::kStopToken, absl::OkStatus(), FakeCodec::kEos); }
    int n_tokens = 0;
    bool begun = false;
  };

  absl::StatusOr<std::unique_ptr<Handle>> Submit(
      GenerationRequest request, std::shared_ptr<GenerationListener> listener) override {
    absl::MutexLock lock(&mu_);
    if (static_cast<int>(submissions_.size()) == refuse_after) return refusal;
    auto submission = std::make_shared<Submission>();
    submission->request = std::move(request);
    submission->listener = std::move(listener);
    submissions_.push_back(submission);
    if (end_in_submit) {
      submission->Begin();
      submission->Stop();
    }
    return std::make_unique<FakeHandle>(this, std::move(submission));
  }
  Load load() const override { return {}; }
  int max_sequence_tokens() const override { return max_tokens; }

  // Waits for the preparation pool to submit number `index`.
  Submission& Await(int index) {
    const auto there = [this, index]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return static_cast<int>(submissions_.size()) > index;
    };
    absl::MutexLock lock(&mu_, absl::Condition(&there));
    return *submissions_[index];
  }
  void AwaitRelease(int index) {
    Submission& submission = Await(index);
    absl::MutexLock lock(&mu_, absl::Condition(&submission.released));
  }
  int n_submitted() const {
    absl::MutexLock lock(&mu_);
    return static_cast<int>(submissions_.size());
  }

  int max_tokens = 64;
  int refuse_after = -1;
  bool end_in_submit = false;  // as a fast scheduler may
  absl::Status refusal;

 private:
  class FakeHandle final : public Handle {
   public:
    FakeHandle(FakeGenerationService* service, std::shared_ptr<Submission> submission)
        : service_(service), submission_(std::move(submission)) {}
    ~FakeHandle() override {
      absl::MutexLock lock(&service_->mu_);
      submission_->released = true;
    }

   private:
    FakeGenerationService* const service_;
    const std::shared_ptr<Submission> submission_;
  };

  mutable absl::Mutex mu_;
  std::vector<std::shared_ptr<Submission>> submissions_ ABSL_GUARDED_BY(mu_);
};

class FakeCluster final : public ClusterView {
 public:
  cluster::v1::GetClusterResponse Snapshot() const override {
    cluster::v1::GetClusterResponse response;
    response.set_model("tiny");
    response.set_topology_version(version);
    for (const char* name : {"a", "b", "c"}) response.add_workers()->set_name(name);
    return response;
  }
  std::vector<cluster::v1::ExpertLoad> ExpertLoads() const override {
    cluster::v1::ExpertLoad load;
    load.set_layer(1);
    load.set_expert(2);
    load.set_rows(3);
    return {load};
  }
  std::vector<std::string> ShardNames() const override { return {"expert-0", "expert-1"}; }
  uint64_t topology_version() const override { return version; }
  bool mixed_numerics() const override { return mixed; }

  std::atomic<uint64_t> version{7};
  std::atomic<bool> mixed{false};
};

class FakeStats final : public ServingStats {
 public:
  cluster::v1::GetServingStatsResponse Stats() const override {
    cluster::v1::GetServingStatsResponse stats;
    stats.set_n_running(3);
    return stats;
  }
};

// Knows the worker "a".
class FakeAdmin final : public ClusterAdmin {
 public:
  void SetDraining(const std::string& worker, bool draining,
                   std::function<void(absl::StatusOr<cluster::v1::Worker>)> done) override {
    if (worker != "a") return done(absl::NotFoundError("no such worker"));
    cluster::v1::Worker answer;
    answer.set_name(worker);
    answer.set_state(draining ? cluster::v1::WORKER_STATE_DRAINING
                              : cluster::v1::WORKER_STATE_READY);
    done(answer);
  }
  void FlushKvCache(
      const std::string& worker,
      std::function<void(absl::StatusOr<cluster::v1::FlushKvCacheResponse>)> done) override {
    if (!worker.empty() && worker != "a") return done(absl::NotFoundError("no such worker"));
    cluster::v1::FlushKvCacheResponse response;
    auto* flushed = response.add_workers();
    flushed->set_worker("a");
    flushed->set_n_kv_blocks(3);
    done(response);
  }
  void Rebalance(
      std::function<void(absl::StatusOr<cluster::v1::RebalanceExpertsResponse>)> done) override {
    cluster::v1::RebalanceExpertsResponse response;
    response.set_n_loads(5);
    done(response);
  }
};

class FakeObserver final : public GatewayObserver {
 public:
  void OnRequestStarted(RequestKind) override { Count(&n_started); }
  void OnFirstToken(absl::Duration) override { Count(&n_first_tokens); }
  void OnNextToken(absl::Duration) override { Count(&n_next_tokens); }
  void OnRequestEnded(const RequestReport& report) override {
    absl::MutexLock lock(&mu);
    reports.push_back(report);
  }

  absl::Mutex mu;
  int n_started = 0, n_first_tokens = 0, n_next_tokens = 0;
  std::vector<RequestReport> reports;

 private:
  void Count(int* counter) {
    absl::MutexLock lock(&mu);
    ++*counter;
  }
};

inline ModelInfo TinyModel() {
  ModelInfo model;
  model.name = "tiny";
  model.family = "mixtral";
  model.fingerprint = "0123abcd";
  model.vocab_size = FakeCodec::kVocabSize;
  model.n_layers = 2;
  model.n_experts = 4;
  model.top_k = 2;
  model.max_sequence_tokens = 128;
  model.eos_token_ids = {FakeCodec::kEos};
  model.bos_token_id = FakeCodec::kBos;
  return model;
}

}  // namespace gatefold
