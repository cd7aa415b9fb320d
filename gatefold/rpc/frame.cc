#include "gatefold/rpc/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/kernels/rows.h"
#include "gatefold/rpc/frame_layout.h"
#include "gatefold/rpc/message_parts.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {
namespace {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian");

// Payloads up to here are copied behind the header: a slice with an owner costs more.
constexpr size_t kCopiedPayloadBytes = size_t{16} << 10;

size_t VarintBytes(uint64_t value) { return (std::bit_width(value | 1) + 6) / 7; }

uint8_t* PutVarint(uint64_t value, uint8_t* out) {
  while (value >= 0x80) {
    *out++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}

// Shares the memory; gRPC drops its share when the bytes have left.
grpc::Slice SharedSlice(const PayloadBuffer& payload) {
  auto* owner = new PayloadBuffer(payload);
  return grpc::Slice(
      owner->data(), owner->size_bytes(),
      [](void* held) { delete static_cast<PayloadBuffer*>(held); }, owner);
}

absl::Status TooLarge(absl::string_view what, size_t bytes, size_t limit) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " of ", bytes, " bytes, the limit is ", limit));
}

absl::Status DumpSlices(const grpc::ByteBuffer& wire, std::vector<grpc::Slice>* slices) {
  if (!wire.Valid()) return MalformedFrame("no message");
  if (!wire.Dump(slices).ok()) return MalformedFrame("its slices cannot be read");
  return absl::OkStatus();
}

}  // namespace

void FramePayload::CopyTo(void* to) const {
  char* out = static_cast<char*>(to);
  size_t left = size_bytes_;
  size_t offset = offset_;
  for (size_t i = first_slice_; left > 0; ++i, offset = 0) {
    const size_t piece = std::min(left, slices_[i].size() - offset);
    std::memcpy(out, slices_[i].begin() + offset, piece);
    out += piece;
    left -= piece;
  }
}

FloatReader::FloatReader(const FramePayload& payload, WireDtype dtype)
    : slice_(payload.slices_.data() + payload.first_slice_),
      offset_(payload.offset_),
      element_bytes_(WireDtypeBytes(dtype)) {
  GF_CHECK(element_bytes_ > 0);
}

absl::Span<const uint8_t> FloatReader::Take(size_t bytes) {
  while (offset_ == slice_->size()) {
    ++slice_;
    offset_ = 0;
  }
  const absl::Span<const uint8_t> piece(slice_->begin() + offset_,
                                        std::min(bytes, slice_->size() - offset_));
  offset_ += piece.size();
  return piece;
}

void FloatReader::Read(float* to, size_t n) {
  if (element_bytes_ == sizeof(float)) {
    char* out = reinterpret_cast<char*>(to);
    for (size_t left = n * sizeof(float); left > 0;) {
      const absl::Span<const uint8_t> piece = Take(left);
      std::memcpy(out, piece.data(), piece.size());
      out += piece.size();
      left -= piece.size();
    }
    return;
  }
  for (float* const end = to + n; to < end;) {
    const absl::Span<const uint8_t> piece = Take((end - to) * sizeof(uint16_t));
    const size_t whole = piece.size() / sizeof(uint16_t);
    kernels::FromBF16(piece.data(), whole, to);
    to += whole;
    if (piece.size() % sizeof(uint16_t) == 0) continue;
    const uint8_t low = piece.back();  // this element lies across two slices
    *to++ = BF16ToFloat(static_cast<uint16_t>(low | Take(1)[0] << 8));
  }
}

void FloatReader::Skip(size_t n) {
  for (size_t left = n * element_bytes_; left > 0;) left -= Take(left).size();
}

grpc::ByteBuffer WriteFrame(const google::protobuf::MessageLite& header,
                            const PayloadBuffer& payload) {
  const size_t payload_bytes = payload.size_bytes();
  if (payload_bytes == 0) return WriteMessage(header);
  const bool copied = payload_bytes <= kCopiedPayloadBytes;

  const size_t header_bytes = header.ByteSizeLong();
  const size_t front_bytes = header_bytes + 1 + VarintBytes(payload_bytes);
  grpc::Slice slices[2] = {grpc::Slice(front_bytes + (copied ? payload_bytes : 0)), grpc::Slice()};
  uint8_t* end = header.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slices[0].begin()));
  *end++ = kPayloadTag;
  end = PutVarint(payload_bytes, end);
  if (copied) {
    std::memcpy(end, payload.data(), payload_bytes);
    return grpc::ByteBuffer(slices, 1);
  }
  slices[1] = SharedSlice(payload);
  return grpc::ByteBuffer(slices, 2);
}

grpc::ByteBuffer WriteMessage(const google::protobuf::MessageLite& message) {
  const size_t bytes = message.ByteSizeLong();
  grpc::Slice slice(bytes);
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status ReadFrame(const grpc::ByteBuffer& wire, google::protobuf::MessageLite* header,
                       FramePayload* payload) {
  payload->Clear();
  constexpr size_t kMaxBytes = kMaxFrameHeaderBytes + kMaxFramePayloadBytes;
  if (wire.Valid() && wire.Length() > kMaxBytes)
    return TooLarge("a frame", wire.Length(), kMaxBytes);
  GF_RETURN_IF_ERROR(DumpSlices(wire, &payload->slices_));
  FrameLayout layout;
  GF_RETURN_IF_ERROR(FindFields(payload->slices_, &layout));
  if (layout.payload_bytes > kMaxFramePayloadBytes) {
    return TooLarge("a payload", layout.payload_bytes, kMaxFramePayloadBytes);
  }
  if (layout.header_bytes > kMaxFrameHeaderBytes) {
    return TooLarge("a frame header", layout.header_bytes, kMaxFrameHeaderBytes);
  }
  GF_RETURN_IF_ERROR(ParseHeader(payload->slices_, layout, header));
  payload->size_bytes_ = layout.payload_bytes;
  payload->first_slice_ = layout.payload_slice;
  payload->offset_ = layout.payload_offset;
  if (payload->empty()) payload->slices_.clear();  // keep no transport memory for nothing
  return absl::OkStatus();
}

absl::Status ReadMessage(const grpc::ByteBuffer& wire, size_t max_bytes,
                         google::protobuf::MessageLite* message) {
  std::vector<grpc::Slice> slices;
  GF_RETURN_IF_ERROR(DumpSlices(wire, &slices));
  FrameLayout layout;
  for (const grpc::Slice& slice : slices) layout.header_bytes += slice.size();
  if (layout.header_bytes > max_bytes) {
    return TooLarge(message->GetTypeName(), layout.header_bytes, max_bytes);
  }
  if (layout.header_bytes > 0) layout.header.push_back({0, layout.header_bytes});
  return ParseHeader(slices, layout, message);
}

absl::Status ReadMessage(const grpc::ByteBuffer& wire, size_t max_bytes, size_t max_parts,
                         google::protobuf::Message* message) {
  if (wire.Valid() && wire.Length() > max_bytes) {
    return TooLarge(message->GetTypeName(), wire.Length(), max_bytes);
  }
  GF_RETURN_IF_ERROR(CheckParts(wire, *message->GetDescriptor(), max_parts));
  return ReadMessage(wire, max_bytes, message);
}

size_t WireDtypeBytes(WireDtype dtype) {
  switch (dtype) {
    case WireDtype::WIRE_DTYPE_FLOAT32:
      return 4;
    case WireDtype::WIRE_DTYPE_BFLOAT16:
      return 2;
    default:
      return 0;
  }
}

absl::StatusOr<size_t> PayloadBytes(WireDtype dtype, uint64_t n_rows, uint64_t d_model) {
  const size_t element_bytes = WireDtypeBytes(dtype);
  if (element_bytes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", static_cast<int>(dtype), " is unknown"));
  }
  const auto bytes = static_cast<unsigned __int128>(n_rows) * d_model;
  if (bytes > kMaxFramePayloadBytes / element_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden_states of [", n_rows, ", ", d_model, "] in ", element_bytes,
                     "-byte elements exceed the limit of ", kMaxFramePayloadBytes, " bytes"));
  }
  return static_cast<size_t>(bytes) * element_bytes;
}

absl::Status CheckShape(const FramePayload& payload, WireDtype dtype, uint64_t n_rows,
                        uint64_t d_model) {
  GF_ASSIGN_OR_RETURN(const size_t wanted, PayloadBytes(dtype, n_rows, d_model));
  if (payload.size_bytes() == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("hidden_states has ", payload.size_bytes(),
                                                 " bytes, [", n_rows, ", ", d_model, "] needs ",
                                                 wanted));
}

absl::StatusOr<PayloadBuffer> MakePayload(WireDtype dtype, uint64_t n_rows, uint64_t d_model) {
  GF_ASSIGN_OR_RETURN(const size_t bytes, PayloadBytes(dtype, n_rows, d_model));
  return PayloadBuffer(bytes);
}

void WriteFloats(WireDtype dtype, absl::Span<const float> values, size_t first,
                 PayloadBuffer* payload) {
  const size_t element_bytes = WireDtypeBytes(dtype);
  GF_CHECK(element_bytes > 0 && (first + values.size()) * element_bytes <= payload->size_bytes());
  if (values.empty()) return;
  if (dtype == WireDtype::WIRE_DTYPE_FLOAT32) {
    std::memcpy(payload->as<float>() + first, values.data(), values.size() * sizeof(float));
    return;
  }
  kernels::ToBF16(values.data(), values.size(), payload->as<uint16_t>() + first);
}

absl::StatusOr<OutgoingRows> OutgoingRows::Make(WireDtype dtype, uint64_t n_rows,
                                                uint64_t d_model) {
  GF_ASSIGN_OR_RETURN(const size_t bytes, PayloadBytes(dtype, n_rows, d_model));
  return OutgoingRows(dtype, PayloadBuffer(bytes / WireDtypeBytes(dtype) * sizeof(float)));
}

PayloadBuffer OutgoingRows::TakePayload() {
  if (dtype_ == WireDtype::WIRE_DTYPE_FLOAT32) return std::move(values_);
  const absl::Span<const float> values(data(), values_.size_bytes() / sizeof(float));
  PayloadBuffer payload(values.size() * WireDtypeBytes(dtype_));
  WriteFloats(dtype_, values, 0, &payload);
  values_ = PayloadBuffer();
  return payload;
}

}  // namespace gatefold
