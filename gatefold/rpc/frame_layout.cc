#include "gatefold/rpc/frame_layout.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr size_t kMaxVarintBytes = 10;

// Header and payload may alternate; nobody writes them so more than once or twice.
constexpr size_t kMaxHeaderRanges = 64;

// A position in a list of slices.
class Cursor {
 public:
  explicit Cursor(const std::vector<grpc::Slice>& slices) : slices_(&slices) {
    for (const grpc::Slice& slice : slices) left_ += slice.size();
    SkipEmpty();
  }

  size_t left() const { return left_; }
  size_t slice() const { return slice_; }
  size_t offset() const { return offset_; }

  bool Byte(uint8_t* byte) {
    if (left_ == 0) return false;
    *byte = (*slices_)[slice_].begin()[offset_];
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
      const size_t piece = std::min(n, (*slices_)[slice_].size() - offset_);
      Advance(piece);
      n -= piece;
    }
    return true;
  }

  // Appends the next n bytes, which must be there, and moves past them.
  void Append(size_t n, std::string* out) {
    while (n > 0) {
      const size_t piece = std::min(n, (*slices_)[slice_].size() - offset_);
      out->append(reinterpret_cast<const char*>((*slices_)[slice_].begin()) + offset_, piece);
      Advance(piece);
      n -= piece;
    }
  }

  // The next n bytes where they lie in one piece, else null.
  const uint8_t* Contiguous(size_t n) const {
    if (slice_ == slices_->size() || (*slices_)[slice_].size() - offset_ < n) return nullptr;
    return (*slices_)[slice_].begin() + offset_;
  }

 private:
  void Advance(size_t n) {
    offset_ += n;
    left_ -= n;
    SkipEmpty();
  }
  void SkipEmpty() {
    while (slice_ < slices_->size() && offset_ == (*slices_)[slice_].size()) {
      ++slice_;
      offset_ = 0;
    }
  }

  const std::vector<grpc::Slice>* slices_;
  size_t slice_ = 0;
  size_t offset_ = 0;
  size_t left_ = 0;
};

// Moves past the value of a field whose tag was read.
absl::Status SkipValue(uint64_t tag, Cursor* cursor) {
  uint64_t value;
  switch (tag & 7) {
    case 0:
      if (!cursor->Varint(kMaxVarintBytes, &value)) return MalformedFrame("cut varint");
      return absl::OkStatus();
    case 1:
      if (!cursor->Skip(8)) return MalformedFrame("cut 64-bit field");
      return absl::OkStatus();
    case 2:
      if (!cursor->Varint(5, &value)) return MalformedFrame("cut or oversized length");
      if (!cursor->Skip(value)) {
        return MalformedFrame(absl::StrCat("field ", tag >> 3, " claims ", value, " bytes, ",
                                           cursor->left(), " are left"));
      }
      return absl::OkStatus();
    case 5:
      if (!cursor->Skip(4)) return MalformedFrame("cut 32-bit field");
      return absl::OkStatus();
    default:
      return MalformedFrame(absl::StrCat("wire type ", tag & 7, " of field ", tag >> 3));
  }
}

}  // namespace

absl::Status MalformedFrame(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed frame: ", what));
}

absl::Status FrameLayout::AddHeader(size_t begin, size_t end) {
  if (end == begin) return absl::OkStatus();
  if (header.size() == kMaxHeaderRanges) return MalformedFrame("too many payloads");
  header.push_back({begin, end - begin});
  header_bytes += end - begin;
  return absl::OkStatus();
}

absl::Status FindFields(const std::vector<grpc::Slice>& slices, FrameLayout* layout) {
  Cursor cursor(slices);
  const size_t total = cursor.left();
  size_t header_begin = 0;
  while (cursor.left() > 0) {
    const size_t field_begin = total - cursor.left();
    uint64_t tag, size;
    if (!cursor.Varint(5, &tag) || tag > std::numeric_limits<uint32_t>::max() || tag >> 3 == 0) {
      return MalformedFrame(absl::StrCat("bad tag at byte ", field_begin));
    }
    if (tag != kPayloadTag) {
      GF_RETURN_IF_ERROR(SkipValue(tag, &cursor));
      continue;
    }
    GF_RETURN_IF_ERROR(layout->AddHeader(header_begin, field_begin));
    if (!cursor.Varint(5, &size)) return MalformedFrame("cut or oversized payload length");
    layout->payload_slice = cursor.slice();
    layout->payload_offset = cursor.offset();
    layout->payload_bytes = size;
    if (!cursor.Skip(size)) {
      return MalformedFrame(
          absl::StrCat("the payload claims ", size, " bytes, ", cursor.left(), " are left"));
    }
    header_begin = total - cursor.left();
  }
  return layout->AddHeader(header_begin, total);
}

absl::Status ParseHeader(const std::vector<grpc::Slice>& slices, const FrameLayout& layout,
                         google::protobuf::MessageLite* header) {
  const int size = static_cast<int>(layout.header_bytes);
  const void* bytes = nullptr;
  std::string joined;
  Cursor cursor(slices);
  if (layout.header.size() == 1) {
    cursor.Skip(layout.header[0].begin);
    bytes = cursor.Contiguous(layout.header_bytes);
  }
  if (bytes == nullptr) {
    joined.reserve(layout.header_bytes);
    cursor = Cursor(slices);
    size_t position = 0;
    for (const FrameLayout::Range& range : layout.header) {
      cursor.Skip(range.begin - position);
      cursor.Append(range.size, &joined);
      position = range.begin + range.size;
    }
    bytes = joined.data();
  }
  if (header->ParseFromArray(bytes, size)) return absl::OkStatus();
  return MalformedFrame(absl::StrCat("its fields are no ", header->GetTypeName()));
}

}  // namespace gatefold
