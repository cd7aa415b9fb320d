#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// The gate's choice for a batch of rows: for each row, `top_k` distinct experts in ascending order
// with the weights of their answers. They lie where the rows do (see StepRows).
struct Routes {
  int n_rows = 0;
  int top_k = 0;
  absl::Span<const int32_t> experts;  // [n_rows, top_k]
  absl::Span<const float> weights;    // [n_rows, top_k]
};

// In place of a shard's index: nobody answered.
inline constexpr uint8_t kNoShard = 255;

// A row of a step that needs an expert which no live shard computes.
struct MissingExpert {
  int row = 0;
  int layer = 0;
  int expert = 0;
  absl::Status why;   // kUnavailable
  bool held = false;  // by a shard that does not answer now
};

enum class ExpertState {
  kNotHeld,  // by no live shard
  kSilent,   // all that hold it owe answers
  kLive,     // there is a shard to ask
};

// The step loop's door to the experts: in this process or over gRPC, with the same bits. One object
// belongs to one lane. Threads: one at a time.
class ExpertClient {
 public:
  virtual ~ExpertClient() = default;

  // Computes every (row, expert) pair of `routes` in `layer`.
  // h: [n_rows, d_model]. answers: [n_rows, top_k, d_model], unweighted, out. served_by:
  // [n_rows, top_k], the shard (as the client numbers them) that answered, out; kNoShard with an
  // answer of zeros where the policy lets a row go on without one of its experts, never all.
  // Errors: kUnavailable naming layer and expert, when no live shard holds it.
  virtual absl::Status Run(const Step& step, int layer, const float* h, const Routes& routes,
                           float* answers, uint8_t* served_by) = 0;

  // Why the last Run() gave kUnavailable, in ascending rows: the other rows could go on. Empty: for
  // another reason.
  virtual const std::vector<MissingExpert>& missing() const {
    static const auto* const none = new std::vector<MissingExpert>();
    return *none;
  }

  virtual ExpertState StateOf(int /*layer*/, int /*expert*/) { return ExpertState::kLive; }
};

}  // namespace gatefold
