#include "expert-service/expert_transfer.h"

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/worker/worker.h"

namespace gatefold {
namespace {

template <typename Message>
void Identify(const ExpertCatalog& catalog, Message* message) {
  message->set_wire_version(kWireVersion);
  message->set_model_fingerprint(catalog.model_fingerprint());
}

template <typename Message>
absl::Status CheckIdentity(const Message& message, const ExpertCatalog& catalog) {
  if (message.wire_version() != kWireVersion) {
    return absl::FailedPreconditionError(absl::StrCat("wire_version is ", message.wire_version(),
                                                      ", this shard speaks ", kWireVersion));
  }
  if (message.model_fingerprint() != catalog.model_fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat("model_fingerprint is \"", PrintableName(message.model_fingerprint()),
                     "\", this shard has ", catalog.model_fingerprint()));
  }
  return absl::OkStatus();
}

}  // namespace

internal::v1::FetchExpertRequest MakeFetchRequest(const ExpertCatalog& catalog, ExpertId id) {
  internal::v1::FetchExpertRequest request;
  Identify(catalog, &request);
  request.set_layer(id.layer);
  request.set_expert(id.expert);
  return request;
}

absl::Status CheckFetchRequest(const internal::v1::FetchExpertRequest& request,
                               const ExpertCatalog& catalog) {
  GF_RETURN_IF_ERROR(CheckIdentity(request, catalog));
  const ModelConfig& config = catalog.config();
  if (request.layer() >= static_cast<uint32_t>(config.n_layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer is ", request.layer(), ", the model has ", config.n_layers));
  }
  if (request.expert() >= static_cast<uint32_t>(config.experts_per_layer())) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert is ", request.expert(), ", a layer has ", config.experts_per_layer()));
  }
  return absl::OkStatus();
}

internal::v1::FetchExpertResponse MakeFetchHeader(const ExpertCatalog& catalog,
                                                  const ExpertLayout& layout) {
  internal::v1::FetchExpertResponse header;
  Identify(catalog, &header);
  for (const ExpertLayout::Part& part : layout.parts()) {
    internal::v1::ExpertTensor* tensor = header.add_tensors();
    tensor->set_role(std::string(ExpertPartName(part.part)));
    tensor->set_dtype(std::string(DTypeName(part.dtype)));
    tensor->set_n_rows(static_cast<uint64_t>(part.n_rows));
    tensor->set_n_cols(static_cast<uint64_t>(part.n_cols));
  }
  return header;
}

absl::Status CheckFetchHeader(const internal::v1::FetchExpertResponse& header,
                              const ExpertCatalog& catalog, const ExpertLayout& layout) {
  GF_RETURN_IF_ERROR(CheckIdentity(header, catalog));
  if (header.tensors_size() != static_cast<int>(layout.parts().size())) {
    return absl::InvalidArgumentError(absl::StrCat("size of tensors is ", header.tensors_size(),
                                                   ", must be ", layout.parts().size()));
  }
  for (int i = 0; i < header.tensors_size(); ++i) {
    const internal::v1::ExpertTensor& tensor = header.tensors(i);
    const ExpertLayout::Part& part = layout.parts()[i];
    if (tensor.role() == ExpertPartName(part.part) && tensor.dtype() == DTypeName(part.dtype) &&
        tensor.n_rows() == static_cast<uint64_t>(part.n_rows) &&
        tensor.n_cols() == static_cast<uint64_t>(part.n_cols)) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "tensors[", i, "] is ", PrintableName(tensor.role()), " ", PrintableName(tensor.dtype()),
        " [", tensor.n_rows(), ", ", tensor.n_cols(), "], must be ", ExpertPartName(part.part), " ",
        DTypeName(part.dtype), " [", part.n_rows, ", ", part.n_cols, "]"));
  }
  return absl::OkStatus();
}

}  // namespace gatefold
