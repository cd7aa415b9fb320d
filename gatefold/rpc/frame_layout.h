#pragma once

// How frame.cc takes a message apart without copying it. Not for other use.

#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

namespace gatefold {

inline constexpr int kPayloadField = 15;
inline constexpr uint32_t kPayloadTag = kPayloadField << 3 | 2;  // length-delimited

absl::Status MalformedFrame(absl::string_view what);

// Where the parts of a frame lie. The header is everything outside of field 15: usually one range,
// in front.
struct FrameLayout {
  struct Range {
    size_t begin;
    size_t size;
  };
  absl::InlinedVector<Range, 2> header;
  size_t header_bytes = 0;
  size_t payload_slice = 0;
  size_t payload_offset = 0;  // into that slice
  size_t payload_bytes = 0;

  absl::Status AddHeader(size_t begin, size_t end);
};

// Looks at the tags and lengths of all top-level fields. Errors: kInvalidArgument.
absl::Status FindFields(const std::vector<grpc::Slice>& slices, FrameLayout* layout);

// Parses the header bytes, in place if they lie in one slice. Errors: kInvalidArgument.
absl::Status ParseHeader(const std::vector<grpc::Slice>& slices, const FrameLayout& layout,
                         google::protobuf::MessageLite* header);

}  // namespace gatefold
