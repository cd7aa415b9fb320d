#pragma once

// Messages with a tensor in them, sent and received without copying the tensor.
//
// A frame is a protobuf message whose field 15 is `bytes` with the tensor (see expert.proto,
// attention.proto). On the wire it is exactly what generated code writes; here the message without
// field 15 is the header, and field 15 is the payload.
//
//   ExpertServiceRunRequest header;  ...  PayloadBuffer rows(bytes);  ...
//   grpc::ByteBuffer wire = WriteFrame(header, rows);
//
//   ExpertServiceRunRequest header;  FramePayload rows;
//   GF_RETURN_IF_ERROR(ReadFrame(wire, &header, &rows));
//   GF_RETURN_IF_ERROR(CheckShape(rows, header.dtype(), header.n_rows(), header.d_model()));
//   FloatReader(rows, header.dtype()).Read(x, n);   // x: [n_rows, d_model], n in all

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gatefold/internal/v1/wire.pb.h"
#include "gatefold/rpc/payload_buffer.h"
#include "google/protobuf/message.h"

namespace gatefold {

using internal::v1::WireDtype;

inline constexpr size_t kMaxFrameHeaderBytes = size_t{16} << 20;
inline constexpr size_t kMaxFramePayloadBytes = size_t{64} << 20;
// gRPC's limit for one message, both ways; the header counts too.
inline constexpr int kMaxMessageBytes =
    static_cast<int>(kMaxFrameHeaderBytes + kMaxFramePayloadBytes);

// Field 15 of a received frame: slices of the transport's own buffers, which it keeps alive.
// Reuse one object for many frames, it keeps its capacity.
class FramePayload {
 public:
  size_t size_bytes() const { return size_bytes_; }
  bool empty() const { return size_bytes_ == 0; }

  // Gives the transport its memory back, rather than with the next frame.
  void Clear() {
    slices_.clear();
    size_bytes_ = 0;
  }

  // `to` has room for size_bytes().
  void CopyTo(void* to) const;

 private:
  friend class FloatReader;
  friend absl::Status ReadFrame(const grpc::ByteBuffer&, google::protobuf::MessageLite*,
                                FramePayload*);

  std::vector<grpc::Slice> slices_;
  size_t first_slice_ = 0;
  size_t offset_ = 0;  // into the first slice
  size_t size_bytes_ = 0;
};

// Takes the values of a payload, from the first on, to where they are wanted: the one copy.
class FloatReader {
 public:
  // The caller has called CheckShape. The payload outlives the reader and does not change.
  FloatReader(const FramePayload& payload, WireDtype dtype);

  // The next n values, widened to float32. As many are left.
  void Read(float* to, size_t n);
  void Skip(size_t n);

 private:
  // The next `bytes`, or as many of them as lie in one piece.
  absl::Span<const uint8_t> Take(size_t bytes);

  const grpc::Slice* slice_;
  size_t offset_;  // into it
  size_t element_bytes_;
};

// The message as generated code would write it, field 15 being `payload` (left out if empty).
// `header` must not have field 15 set. Does not look at the limits: the receiver does.
grpc::ByteBuffer WriteFrame(const google::protobuf::MessageLite& header,
                            const PayloadBuffer& payload);
// A frame without a payload: any message.
grpc::ByteBuffer WriteMessage(const google::protobuf::MessageLite& message);

// Takes apart what WriteFrame or generated code wrote, whatever the order of the fields; the last
// field 15 wins, as in protobuf. `header` comes without field 15.
// Errors: kInvalidArgument for bytes that are no such message or exceed the limits above.
absl::Status ReadFrame(const grpc::ByteBuffer& wire, google::protobuf::MessageLite* header,
                       FramePayload* payload);
// A whole message of at most `max_bytes`, without a payload of its own.
absl::Status ReadMessage(const grpc::ByteBuffer& wire, size_t max_bytes,
                         google::protobuf::MessageLite* message);
// The same where the bytes may be meant to do harm: nothing is allocated for a message that would
// have more than `max_parts` parts (message_parts.h).
absl::Status ReadMessage(const grpc::ByteBuffer& wire, size_t max_bytes, size_t max_parts,
                         google::protobuf::Message* message);

// Bytes per element; 0 for an unknown dtype.
size_t WireDtypeBytes(WireDtype dtype);

// n_rows * d_model elements of a payload. kInvalidArgument for an unknown dtype or more than the
// limit.
absl::StatusOr<size_t> PayloadBytes(WireDtype dtype, uint64_t n_rows, uint64_t d_model);

// kInvalidArgument unless the payload has exactly n_rows * d_model elements of a known dtype.
absl::Status CheckShape(const FramePayload& payload, WireDtype dtype, uint64_t n_rows,
                        uint64_t d_model);

// Room for as many. Errors: as PayloadBytes.
absl::StatusOr<PayloadBuffer> MakePayload(WireDtype dtype, uint64_t n_rows, uint64_t d_model);

// Writes values as `dtype` to element `first` of the payload and on. bfloat16 rounds to nearest
// even; values that the step loop has rounded already stay as they are.
void WriteFloats(WireDtype dtype, absl::Span<const float> values, size_t first,
                 PayloadBuffer* payload);

// Rows that are computed in float32 and sent as `dtype`: in the payload itself where that is
// float32.
class OutgoingRows {
 public:
  // Errors: as PayloadBytes.
  static absl::StatusOr<OutgoingRows> Make(WireDtype dtype, uint64_t n_rows, uint64_t d_model);

  float* data() { return values_.as<float>(); }  // [n_rows, d_model], not zeroed
  // Once, when they are all there.
  PayloadBuffer TakePayload();

 private:
  OutgoingRows(WireDtype dtype, PayloadBuffer values) : dtype_(dtype), values_(std::move(values)) {}

  WireDtype dtype_;
  PayloadBuffer values_;  // float32
};

}  // namespace gatefold
