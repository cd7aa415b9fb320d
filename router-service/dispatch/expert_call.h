#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/frame.h"

namespace gatefold {

// One message to one shard, and what its answer is for.
struct ExpertCall {
  // kTrial: only its time is wanted.
  enum class Purpose { kAnswer, kHedge, kVerify, kTrial };
  Purpose purpose = Purpose::kAnswer;
  uint64_t batch = 0;  // the Run() that sent it
  int shard = 0;       // index
  internal::v1::CallKey key;
  std::string traceparent;  // of the step
  absl::Time sent;

  std::vector<uint32_t> experts, n_rows_of_expert, rows;  // as in ExpertServiceRunRequest
  std::vector<int> sent_rows;  // rows of the step, in the order of the payload
  std::vector<size_t> slots;   // entries of the routes, in the order of the answer

  bool suspected = false;        // it is late and the directory was told
  std::vector<size_t> to_hedge;  // once it is late: slots that no replica was asked for yet
  std::vector<float> expected;   // of a verification: [slots, d_model]
  int answered_by = -1;          // of a verification: the shard that `expected` came from
  absl::Duration in_time;        // of a trial: how long it may take

  // Rows wait for it.
  bool awaited() const { return purpose == Purpose::kAnswer || purpose == Purpose::kHedge; }

  // Adds one (row, expert) pair. Experts come in ascending order.
  void Add(size_t slot, int row, uint32_t expert);

  // The frame; `h`: [rows of the step, d_model].
  absl::StatusOr<grpc::ByteBuffer> Write(WireDtype dtype, int d_model, const float* h) const;

  // Errors: kUnavailable for a refusal, whose reason is then in `refusal`; kInternal for an answer
  // to something else; kInvalidArgument for bytes that are no answer.
  // The reader has [slots, d_model] values, in `payload`.
  absl::StatusOr<FloatReader> Read(const grpc::ByteBuffer& answer, int d_model,
                                   FramePayload* payload,
                                   internal::v1::RefusalReason* refusal) const;
};

}  // namespace gatefold
