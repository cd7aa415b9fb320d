#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// The step loop's door to attention: in this process or over gRPC, with the same bits. One object
// belongs to one lane. Threads: one at a time.
// Errors of the calls on steps: what a sequence's failure means is told by its own status, see
// TakeFailed. kUnavailable when the step may simply be run again.
class AttentionClient {
 public:
  virtual ~AttentionClient() = default;

  // Takes KV blocks for the sequence; returns how many of its positions were in the prefix cache
  // and need not be computed. kResourceExhausted: none taken, try again once others have ended.
  // kUnavailable: no service is there to open it at.
  virtual absl::StatusOr<int> Open(const SequenceSpec& spec) = 0;

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

  // A sequence because of which a call on a step failed, and how it fared itself:
  //   kAborted: its keys and values are gone, or should go elsewhere: the caller closes it, opens
  //     it again and prefills from its tokens.
  //   kResourceExhausted: there is no KV block for its next positions. What it has, it keeps.
  //   kUnavailable: it may simply be tried again.
  // Other codes end it.
  struct Failed {
    SequenceId sequence = 0;
    absl::Status status;
  };
  // Those of the last call, if that failed: the step's other sequences lost nothing and may run it
  // again. None: the failure is that of all of them.
  virtual std::vector<Failed> TakeFailed() { return {}; }

  // Sequences with the same number compete for the same KV blocks.
  virtual int PlaceOf(SequenceId /*sequence*/) const { return 0; }
};

}  // namespace gatefold
