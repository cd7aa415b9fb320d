#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <string>

#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/payload_buffer.h"
#include "gtest/gtest.h"

namespace gatefold {

// For tests: a frame as the transport would lend it to a session, whose memory tells when nobody
// holds on to it any more. Outlives what it lends.
class LentFrame {
 public:
  LentFrame(const google::protobuf::MessageLite& header, const PayloadBuffer& rows) {
    EXPECT_TRUE(WriteFrame(header, rows).DumpToSingleSlice(&bytes_).ok());
    const grpc::Slice slice(
        const_cast<uint8_t*>(bytes_.begin()), bytes_.size(),
        [](void* flag) { *static_cast<bool*>(flag) = true; }, &given_back_);
    frame_ = grpc::ByteBuffer(&slice, 1);
  }
  LentFrame(const LentFrame&) = delete;
  LentFrame& operator=(const LentFrame&) = delete;

  const grpc::ByteBuffer& frame() const { return frame_; }
  // The transport lets go of it, too: whether it was the last.
  bool IsGivenBack() {
    frame_.Clear();
    return given_back_;
  }

 private:
  grpc::Slice bytes_;
  bool given_back_ = false;
  grpc::ByteBuffer frame_;
};

}  // namespace gatefold
