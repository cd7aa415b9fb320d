#include "gatefold/rpc/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {
namespace {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian");

constexpr uint32_t kLengthDelimited = 2;
constexpr uint32_t kPayloadTag = kPayloadField << 3 | kLengthDelimited;
constexpr size_t kMaxVarintBytes = 10;

// Payloads up to here are copied into the frame: a slice with an owner costs more.
constexpr size_t kCopiedPayloadBytes = size_t{16} << 10;

// Header and payload may alternate; nobody writes them so more than once or twice.
constexpr size_t kMaxHeaderRanges = 64;

uint8_t* PutVarint(uint64_t value, uint8_t* out) {
  while (value >= 0x80) {
    *out++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}

grpc::Slice SliceOf(const PayloadBuffer& payload) {
  if (payload.size_bytes() <= kCopiedPayloadBytes) {
    return grpc::Slice(payload.data(), payload.size_bytes());
  }
  auto* owner = new PayloadBuffer(payload);
  return grpc::Slice(
      owner->data(), owner->size_bytes(),
      [](void* held) { delete static_cast<PayloadBuffer*>(held); }, owner);
}

// A position in a list of slices.
class Cursor {
 public:
  explicit Cursor(const std::vector<grpc::Slice>& slices) : slices_(slices) {
    for (const grpc::Slice& slice : slices) left_ += slice.size();
    SkipEmpty();
  }

  size_t left() const { return left_; }
  size_t slice() const { return slice_; }
  size_t offset() const { return offset_; }

  bool Byte(uint8_t* byte) {
    if (left_ == 0) return false;
    *byte = slices_[slice_].begin()[offset_];
    Advance(1);
    return true;
  }

  // At most `max_bytes` long, as protobuf reads tags and lengths.
  bool Varint(size_t max_bytes, uint64_t* value) {
    *value = 0;
    for (size_t i = 0; i < max_bytes; ++i) {
      uint8_t byte;
      if (!Byte(&byte)) return false;
      *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }

  bool Skip(size_t n) {
    if (n > left_) return false;
    while (n > 0) {
      const size_t piece = std::min(n, slices_[slice_].size() - offset_);
      Advance(piece);
      n -= piece;
    }
    return true;
  }

  // Appends the next n bytes, which must be there, and moves past them.
  void Append(size_t n, std::string* out) {
    while (n > 0) {
      const size_t piece = std::min(n, slices_[slice_].size() - offset_);
      out->append(reinterpret_cast<const char*>(slices_[slice_].begin()) + offset_, piece);
      Advance(piece);
      n -= piece;
    }
  }

  // The next n bytes where they lie in one piece, else null.
  const uint8_t* Contiguous(size_t n) const {
    if (slice_ == slices_.size() || slices_[slice_].size() - offset_ < n) return nullptr;
    return slices_[slice_].begin() + offset_;
  }

 private:
  void Advance(size_t n) {
    offset_ += n;
    left_ -= n;
    SkipEmpty();
  }
  void SkipEmpty() {
    while (slice_ < slices_.size() && offset_ == slices_[slice_].size()) {
      ++slice_;
      offset_ = 0;
    }
  }

  const std::vector<grpc::Slice>& slices_;
  size_t slice_ = 0;
  size_t offset_ = 0;
  size_t left_ = 0;
};

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed frame: ", what));
}

// Moves past the value of a field whose tag was read.
absl::Status SkipValue(uint64_t tag, Cursor* cursor) {
  uint64_t value;
  switch (tag & 7) {
    case 0:
      if (!cursor->Varint(kMaxVarintBytes, &value)) return Malformed("cut varint");
      return absl::OkStatus();
    case 1:
      if (!cursor->Skip(8)) return Malformed("cut 64-bit field");
      return absl::OkStatus();
    case kLengthDelimited:
      if (!cursor->Varint(5, &value)) return Malformed("cut or oversized length");
      if (!cursor->Skip(value)) {
        return Malformed(absl::StrCat("field ", tag >> 3, " claims ", value, " bytes, ",
                                      cursor->left(), " are left"));
      }
      return absl::OkStatus();
    case 5:
      if (!cursor->Skip(4)) return Malformed("cut 32-bit field");
      return absl::OkStatus();
    default:
      return Malformed(absl::StrCat("wire type ", tag & 7, " of field ", tag >> 3));
  }
}

absl::Status ParseHeader(const uint8_t* data, size_t size, google::protobuf::MessageLite* header) {
  if (header->ParseFromArray(data, static_cast<int>(size))) return absl::OkStatus();
  return Malformed(absl::StrCat("its fields are no ", header->GetTypeName()));
}

// Where the header bytes lie: everything outside of field 15.
struct HeaderRange {
  size_t begin;
  size_t size;
};

}  // namespace

template <typename Visitor>
void FramePayload::ForEachPiece(Visitor visit) const {
  size_t left = size_bytes_;
  size_t offset = offset_;
  for (size_t i = first_slice_; left > 0; ++i, offset = 0) {
    const size_t piece = std::min(left, slices_[i].size() - offset);
    visit(slices_[i].begin() + offset, piece);
    left -= piece;
  }
}

void FramePayload::CopyTo(void* to) const {
  char* out = static_cast<char*>(to);
  ForEachPiece([&](const uint8_t* piece, size_t size) {
    std::memcpy(out, piece, size);
    out += size;
  });
}

void FramePayload::ReadFloats(WireDtype dtype, float* to) const {
  if (dtype == WireDtype::WIRE_DTYPE_FLOAT32) {
    CopyTo(to);
    return;
  }
  GF_CHECK(dtype == WireDtype::WIRE_DTYPE_BFLOAT16);
  bool half = false;  // an element may lie across two slices
  uint8_t low = 0;
  ForEachPiece([&](const uint8_t* piece, size_t size) {
    size_t i = 0;
    if (half && size > 0) {
      *to++ = BF16ToFloat(static_cast<uint16_t>(low | piece[0] << 8));
      i = 1;
      half = false;
    }
    for (; i + 2 <= size; i += 2) {
      uint16_t bits;
      std::memcpy(&bits, piece + i, sizeof bits);
      *to++ = BF16ToFloat(bits);
    }
    if (i < size) {
      low = piece[i];
      half = true;
    }
  });
}

grpc::ByteBuffer WriteFrame(const google::protobuf::MessageLite& header,
                            const PayloadBuffer& payload) {
  const size_t header_bytes = header.ByteSizeLong();
  grpc::Slice head(header_bytes + (payload.size_bytes() == 0 ? 0 : 1 + kMaxVarintBytes));
  uint8_t* const begin = const_cast<uint8_t*>(head.begin());
  uint8_t* end = header.SerializeWithCachedSizesToArray(begin);
  if (payload.size_bytes() == 0) return grpc::ByteBuffer(&head, 1);

  *end++ = kPayloadTag;
  end = PutVarint(payload.size_bytes(), end);
  const grpc::Slice slices[2] = {head.sub(0, end - begin), SliceOf(payload)};
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
  payload->size_bytes_ = 0;
  payload->first_slice_ = payload->offset_ = 0;
  payload->slices_.clear();
  if (!wire.Valid()) return Malformed("no message");
  if (wire.Length() > kMaxFrameHeaderBytes + kMaxFramePayloadBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a frame of ", wire.Length(),
                                                   " bytes, the limit is ",
                                                   kMaxFrameHeaderBytes + kMaxFramePayloadBytes));
  }
  if (!wire.Dump(&payload->slices_).ok()) return Malformed("cannot be decompressed");

  Cursor cursor(payload->slices_);
  const size_t total = cursor.left();
  // The header is everything outside of field 15: usually one range, in front.
  absl::InlinedVector<HeaderRange, 2> ranges;
  size_t range_begin = 0, header_bytes = 0;
  const auto end_range = [&](size_t end) {
    if (end == range_begin) return;
    ranges.push_back({range_begin, end - range_begin});
    header_bytes += end - range_begin;
  };
  while (cursor.left() > 0) {
    const size_t field_begin = total - cursor.left();
    uint64_t tag;
    if (!cursor.Varint(5, &tag) || tag > std::numeric_limits<uint32_t>::max() || tag >> 3 == 0) {
      return Malformed(absl::StrCat("bad tag at byte ", field_begin));
    }
    if (tag != kPayloadTag) {
      GF_RETURN_IF_ERROR(SkipValue(tag, &cursor));
      continue;
    }
    end_range(field_begin);
    if (ranges.size() > kMaxHeaderRanges) return Malformed("too many payloads");
    uint64_t size;
    if (!cursor.Varint(5, &size)) return Malformed("cut or oversized payload length");
    payload->first_slice_ = cursor.slice();
    payload->offset_ = cursor.offset();
    if (!cursor.Skip(size)) {
      return Malformed(
          absl::StrCat("the payload claims ", size, " bytes, ", cursor.left(), " are left"));
    }
    payload->size_bytes_ = size;
    range_begin = total - cursor.left();
  }
  end_range(total);

  if (payload->size_bytes_ > kMaxFramePayloadBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", payload->size_bytes_,
                                                   " bytes, the limit is ", kMaxFramePayloadBytes));
  }
  if (header_bytes > kMaxFrameHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a frame header of ", header_bytes,
                                                   " bytes, the limit is ", kMaxFrameHeaderBytes));
  }
  Cursor start(payload->slices_);
  if (ranges.size() == 1) {
    start.Skip(ranges[0].begin);
    if (const uint8_t* bytes = start.Contiguous(header_bytes)) {
      return ParseHeader(bytes, header_bytes, header);
    }
  }
  std::string joined;
  joined.reserve(header_bytes);
  Cursor copy(payload->slices_);
  for (const HeaderRange& range : ranges) {
    copy.Skip(range.begin - (total - copy.left()));
    copy.Append(range.size, &joined);
  }
  return ParseHeader(reinterpret_cast<const uint8_t*>(joined.data()), joined.size(), header);
}

absl::Status ReadMessage(const grpc::ByteBuffer& wire, size_t max_bytes,
                         google::protobuf::MessageLite* message) {
  if (!wire.Valid()) return Malformed("no message");
  if (wire.Length() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(message->GetTypeName(), " of ", wire.Length(),
                                                   " bytes, the limit is ", max_bytes));
  }
  std::vector<grpc::Slice> slices;
  if (!wire.Dump(&slices).ok()) return Malformed("cannot be decompressed");
  Cursor cursor(slices);
  const size_t size = cursor.left();
  if (const uint8_t* bytes = cursor.Contiguous(size)) return ParseHeader(bytes, size, message);
  std::string joined;
  cursor.Append(size, &joined);
  return ParseHeader(reinterpret_cast<const uint8_t*>(joined.data()), size, message);
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

namespace {

// n_rows * d_model * element size, as far as a payload may have it.
absl::StatusOr<size_t> ShapeBytes(WireDtype dtype, uint64_t n_rows, uint64_t d_model) {
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

}  // namespace

absl::Status CheckShape(const FramePayload& payload, WireDtype dtype, uint64_t n_rows,
                        uint64_t d_model) {
  GF_ASSIGN_OR_RETURN(const size_t wanted, ShapeBytes(dtype, n_rows, d_model));
  if (payload.size_bytes() == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("hidden_states has ", payload.size_bytes(),
                                                 " bytes, [", n_rows, ", ", d_model, "] needs ",
                                                 wanted));
}

absl::StatusOr<PayloadBuffer> MakePayload(WireDtype dtype, uint64_t n_rows, uint64_t d_model) {
  GF_ASSIGN_OR_RETURN(const size_t bytes, ShapeBytes(dtype, n_rows, d_model));
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
  uint16_t* to = payload->as<uint16_t>() + first;
  for (size_t i = 0; i < values.size(); ++i) to[i] = FloatToBF16(values[i]);
}

}  // namespace gatefold
