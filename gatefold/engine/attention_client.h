#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// The step loop's door to attention: in this process or over gRPC, with the same bits. One object
// belongs to one lane. Threads: one at a time.
// Errors of the calls on steps: kAborted when keys and values of the step's sequences are gone: the
// caller closes those sequences, opens them again and prefills from their tokens. kUnavailable when
// the step may simply be run again.
class AttentionClient {
 public:
  virtual ~AttentionClient() = default;

  // Reserves KV blocks for the sequence. kResourceExhausted: none taken, try again once others
  // have ended. kUnavailable: no service is there to open it at.
  virtual absl::Status Open(const SequenceSpec& spec) = 0;

  // Frees the sequence's KV blocks, with the next call at the latest. Unknown ids are ignored.
  virtual void Close(SequenceId sequence) = 0;

  // Makes closings happen now: the lane has nothing else to call for.
  virtual void Flush() {}

  // Embeds the step's tokens and applies the first layer's attention. x: [n_rows, d_model], out.
  virtual absl::Status EmbedAndAttend(const Step& step, float* x) = 0;

  // Adds the attention of `layer` to x: [n_rows, d_model], in and out.
  virtual absl::Status Attend(const Step& step, int layer, float* x) = 0;

  // One answer per step.samples entry. x: [n samples, d_model], those rows after the last layer.
  virtual absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float* x) = 0;
};

}  // namespace gatefold
