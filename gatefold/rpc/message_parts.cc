#include "gatefold/rpc/message_parts.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gatefold/rpc/frame_layout.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format.h"

namespace gatefold {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormat;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

constexpr int kMaxDepth = 100;  // as protobuf's

class PartCounter {
 public:
  PartCounter(CodedInputStream* in, size_t max_parts) : in_(*in), left_(max_parts) {}

  // The fields of one message, to its end. False: too many, or malformed.
  bool Count(const Descriptor& type, int depth) {
    Field last;  // unpacked ids are the same field thousands of times
    int n_open_groups = 0;
    while (const uint32_t tag = in_.ReadTag()) {
      if (WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_END_GROUP) {
        if (--n_open_groups < 0) return false;
        continue;
      }
      // Our types have no groups, so what is in one is unknown, too.
      const bool unknown = n_open_groups > 0;
      if (!unknown && tag != last.tag) last = Find(type, tag);
      const Field& field = unknown ? Field{tag} : last;
      if (field.is_part && !Take(type, field)) return false;
      if (WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_START_GROUP) {
        ++n_open_groups;
      } else if (!Pass(field, depth)) {
        return false;
      }
    }
    return n_open_groups == 0 && in_.ConsumedEntireMessage();
  }

  bool too_many() const { return too_many_; }
  // Where.
  const std::string& field() const { return field_; }

 private:
  struct Field {
    uint32_t tag = 0;
    const FieldDescriptor* known = nullptr;
    bool is_part = true;
  };

  static Field Find(const Descriptor& type, uint32_t tag) {
    const auto wire_type = WireFormatLite::GetTagWireType(tag);
    const bool has_length = wire_type == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    const FieldDescriptor* known = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    if (known == nullptr) return {tag};
    if (has_length && known->is_packable()) return {tag, known, false};
    // Parsers keep a field of another wire type as they do one of another number.
    if (wire_type != WireFormat::WireTypeForFieldType(known->type())) return {tag};
    return {tag, known, has_length};
  }

  bool Take(const Descriptor& type, const Field& field) {
    if (left_ > 0) {
      --left_;
      return true;
    }
    too_many_ = true;
    field_ = field.known != nullptr
                 ? field.known->full_name()
                 : absl::StrCat("field ", WireFormatLite::GetTagFieldNumber(field.tag), " of ",
                                type.full_name());
    return false;
  }

  // Moves past the value of a field whose tag was read.
  bool Pass(const Field& field, int depth) {
    uint32_t length;
    uint64_t value;
    switch (WireFormatLite::GetTagWireType(field.tag)) {
      case WireFormatLite::WIRETYPE_VARINT:
        return in_.ReadVarint64(&value);
      case WireFormatLite::WIRETYPE_FIXED64:
        return in_.Skip(8);
      case WireFormatLite::WIRETYPE_FIXED32:
        return in_.Skip(4);
      case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
        if (!in_.ReadVarint32(&length) || length > std::numeric_limits<int>::max()) return false;
        if (field.known == nullptr || field.known->message_type() == nullptr) {
          return in_.Skip(static_cast<int>(length));
        }
        return depth < kMaxDepth &&
               CountWithin(*field.known->message_type(), static_cast<int>(length), depth + 1);
      default:
        return false;
    }
  }

  bool CountWithin(const Descriptor& type, int length, int depth) {
    const CodedInputStream::Limit outer = in_.PushLimit(length);
    if (!Count(type, depth)) return false;
    in_.PopLimit(outer);
    return true;
  }

  CodedInputStream& in_;
  size_t left_;
  bool too_many_ = false;
  std::string field_;
};

}  // namespace

absl::Status CheckParts(const grpc::ByteBuffer& wire, const Descriptor& type, size_t max_parts) {
  if (!wire.Valid()) return MalformedFrame("no message");
  grpc::ByteBuffer shared(wire);  // the reader wants one that it may change; copies no bytes
  grpc::ProtoBufferReader reader(&shared);
  CodedInputStream in(&reader);
  PartCounter counter(&in, max_parts);
  if (counter.Count(type, 0)) return absl::OkStatus();
  if (!counter.too_many()) {
    return MalformedFrame(absl::StrCat("its fields are no ", type.full_name()));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      type.full_name(), " has too many strings, messages and unknown fields: the limit is ",
      max_parts, ", and there are more in ", counter.field()));
}

}  // namespace gatefold
