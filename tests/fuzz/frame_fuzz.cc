// Input: a byte that picks the message type, a byte of slice size, then a message as it came from
// the network. What ReadFrame accepts must be what generated code reads from the same bytes, and
// writing it again must not change it. CheckParts must get through all that parsing gets through.

#include <cstdint>
#include <string>
#include <vector>

#include "gatefold/base/check.h"
#include "gatefold/internal/v1/attention.pb.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/message_parts.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/logging.h"

namespace {

using namespace gatefold::internal::v1;  // NOLINT: four messages of one file

grpc::ByteBuffer Cut(const std::string& bytes, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += piece) slices.emplace_back(bytes.substr(i, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// Maps in the order of their keys.
std::string Canonical(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

template <typename Message>
void Check(const std::string& bytes, size_t piece) {
  Message header;
  gatefold::FramePayload payload;
  const absl::Status status = gatefold::ReadFrame(Cut(bytes, piece), &header, &payload);
  if (!status.ok()) {
    GF_CHECK(status.code() == absl::StatusCode::kInvalidArgument && !status.message().empty());
    return;
  }
  Message expected;
  GF_CHECK(expected.ParseFromString(bytes));
  GF_CHECK(gatefold::CheckParts(Cut(bytes, piece), *Message::descriptor(), bytes.size()).ok());
  std::string content(payload.size_bytes(), '\0');
  payload.CopyTo(content.data());
  GF_CHECK(content == expected.hidden_states());
  GF_CHECK(header.hidden_states().empty());
  expected.clear_hidden_states();
  GF_CHECK(Canonical(header) == Canonical(expected));

  if (gatefold::CheckShape(payload, header.dtype(), header.n_rows(), header.d_model()).ok()) {
    std::vector<float> rows(size_t{header.n_rows()} * header.d_model());
    gatefold::FloatReader(payload, header.dtype()).Read(rows.data(), rows.size());
  }
  gatefold::PayloadBuffer copy(content.size());
  payload.CopyTo(copy.data());
  Message again;
  GF_CHECK(gatefold::ReadFrame(gatefold::WriteFrame(header, copy), &again, &payload).ok());
  GF_CHECK(Canonical(again) == Canonical(header));
  GF_CHECK(payload.size_bytes() == content.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  [[maybe_unused]] static const auto* silence = new google::protobuf::LogSilencer;
  if (size < 2) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t piece = size_t{data[1]} + 1;
  switch (data[0] % 4) {
    case 0:
      Check<ExpertServiceRunRequest>(bytes, piece);
      break;
    case 1:
      Check<ExpertServiceRunResponse>(bytes, piece);
      break;
    case 2:
      Check<AttentionServiceRunRequest>(bytes, piece);
      break;
    default:
      Check<AttentionServiceRunResponse>(bytes, piece);
      break;
  }
  return 0;
}
