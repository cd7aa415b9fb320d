#pragma once

// What a message would hold in memory, told from its bytes before it is parsed.

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"

namespace gatefold {

// A part is what parsing allocates by itself: a string, a message, an entry of a map, a field that
// the type does not know (protobuf keeps those). Two bytes on the wire are enough for one, and in
// memory it takes up to 96. Everything else takes its bytes on the wire times a small number:
// strings once, packed ids of one byte each up to twelve times while their array grows.
// Goes through the bytes without a copy, and no further than to one part too many. Does not say
// that they are such a message: parsing does.
// Errors: kInvalidArgument for more than `max_parts`, naming the field in which they were too many,
// and for bytes that are no message at all.
absl::Status CheckParts(const grpc::ByteBuffer& wire, const google::protobuf::Descriptor& type,
                        size_t max_parts);

}  // namespace gatefold
