#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/candidate_text.h"
#include "router-service/gateway/text_codec.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// One candidate's output as it grows: from what the scheduler tells to the deltas and the finish of
// the stream. Threads: one at a time.
class CandidateTranscript {
 public:
  using Delta = inference::v1::StreamGenerateTextResponse::Delta;
  using Finish = inference::v1::StreamGenerateTextResponse::Finish;

  // `config` is effective. `codec` may be null (no text).
  CandidateTranscript(int index, const TextCodec* codec, absl::Span<const int32_t> prompt,
                      const inference::v1::GenerationConfig& config,
                      const inference::v1::OutputOptions& output);

  // Tokens sent before, by another process: nothing is told of them. True if they already end at a
  // stop string, then nothing may follow but TakeFinish.
  bool Resume(const std::vector<int32_t>& token_ids);

  // The positions from first_position on belong to the next delta.
  // False if they do not follow those before.
  bool AddTrace(const TraceChunk& chunk, int first_position,
                const std::vector<std::string>& shard_names);

  // The next token. `stopped`: its text completes a stop string.
  Delta AddToken(const Sampled& token, bool* stopped);

  // After the last token: what was held back, if anything, and how it ended.
  std::optional<Delta> Flush();
  // After Flush. `cause` is one of an orderly end; stop_token counts for kStopToken.
  Finish TakeFinish(StopCause cause, int32_t stop_token);

  int n_new_tokens() const { return n_new_tokens_; }

 private:
  Delta NewDelta();

  const int index_;
  const TextCodec* const codec_;
  const inference::v1::OutputOptions output_;
  CandidateText text_;
  inference::v1::RoutingTrace pending_trace_;
  std::optional<std::string> matched_stop_;
  int n_new_tokens_ = 0;
};

}  // namespace gatefold
