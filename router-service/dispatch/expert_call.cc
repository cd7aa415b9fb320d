#include "router-service/dispatch/expert_call.h"

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

absl::Status CheckKey(const internal::v1::CallKey& got, const internal::v1::CallKey& wanted) {
  if (got.router_id() == wanted.router_id() && got.lane() == wanted.lane() &&
      got.step() == wanted.step() && got.layer() == wanted.layer() &&
      got.attempt() == wanted.attempt()) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("answered step ", got.step(), ", layer ", got.layer(),
                                          ", attempt ", got.attempt(), "; wanted ", wanted.step(),
                                          ", ", wanted.layer(), ", ", wanted.attempt()));
}

}  // namespace

void ExpertCall::Add(size_t slot, int row, uint32_t expert) {
  if (experts.empty() || experts.back() != expert) {
    experts.push_back(expert);
    n_rows_of_expert.push_back(0);
  }
  ++n_rows_of_expert.back();
  rows.push_back(row);
  slots.push_back(slot);
}

absl::StatusOr<grpc::ByteBuffer> ExpertCall::Write(WireDtype dtype, int d_model,
                                                   const float* h) const {
  internal::v1::ExpertServiceRunRequest header;
  *header.mutable_key() = key;
  header.set_traceparent(traceparent);
  header.set_dtype(dtype);
  header.set_n_rows(static_cast<uint32_t>(sent_rows.size()));
  header.set_d_model(d_model);
  header.mutable_experts()->Assign(experts.begin(), experts.end());
  header.mutable_n_rows_of_expert()->Assign(n_rows_of_expert.begin(), n_rows_of_expert.end());
  header.mutable_rows()->Assign(rows.begin(), rows.end());
  GF_ASSIGN_OR_RETURN(PayloadBuffer payload, MakePayload(dtype, sent_rows.size(), d_model));
  for (size_t i = 0; i < sent_rows.size(); ++i) {
    const float* row = h + static_cast<size_t>(sent_rows[i]) * d_model;
    WriteFloats(dtype, absl::MakeConstSpan(row, d_model), i * d_model, &payload);
  }
  return WriteFrame(header, payload);
}

absl::StatusOr<FloatReader> ExpertCall::Read(const grpc::ByteBuffer& answer, int d_model,
                                             FramePayload* payload,
                                             internal::v1::RefusalReason* refusal) const {
  internal::v1::ExpertServiceRunResponse header;
  GF_RETURN_IF_ERROR(ReadFrame(answer, &header, payload));
  if (header.has_refusal()) {
    *refusal = header.refusal().reason();
    return absl::UnavailableError(
        absl::StrCat(internal::v1::RefusalReason_Name(header.refusal().reason()), ": ",
                     header.refusal().message()));
  }
  GF_RETURN_IF_ERROR(CheckKey(header.key(), key));
  if (header.n_rows() != slots.size() || header.d_model() != static_cast<uint32_t>(d_model)) {
    return absl::InternalError(absl::StrCat("answered ", header.n_rows(), " rows of ",
                                            header.d_model(), ", wanted ", slots.size(), " of ",
                                            d_model));
  }
  GF_RETURN_IF_ERROR(CheckShape(*payload, header.dtype(), header.n_rows(), header.d_model()));
  return FloatReader(*payload, header.dtype());
}

}  // namespace gatefold
