#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/engine/step.h"
#include "gatefold/internal/v1/attention.pb.h"

namespace gatefold {

// The step's structures as messages, and back. What comes from the wire is checked for everything
// that does not need the sequence or the model: ranges, finite numbers, sizes.
// Errors: kInvalidArgument that names the field.

void ToProto(const SequenceSpec& spec, internal::v1::OpenSequence* message);
absl::StatusOr<SequenceSpec> FromProto(const internal::v1::OpenSequence& message);

void ToProto(const StepSpan& span, internal::v1::Span* message);
// Spans whose rows add up to n_rows.
absl::StatusOr<std::vector<StepSpan>> SpansFromProto(
    const internal::v1::AttentionServiceRunRequest& request);

void ToProto(const SampleRequest& request, internal::v1::SampleRow* message);
// One per row; entry i has row i.
absl::StatusOr<std::vector<SampleRequest>> SamplesFromProto(
    const internal::v1::AttentionServiceRunRequest& request);

void ToProto(const Sampled& sampled, internal::v1::SampledRow* message);
Sampled FromProto(const internal::v1::SampledRow& message);

}  // namespace gatefold
