#include "gatefold/rpc/frame.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gatefold/internal/v1/attention.pb.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/tensor/dtype.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::AttentionServiceRunRequest;
using internal::v1::ExpertServiceRunRequest;
using internal::v1::WIRE_DTYPE_BFLOAT16;
using internal::v1::WIRE_DTYPE_FLOAT32;
using internal::v1::WIRE_DTYPE_UNSPECIFIED;
using ::testing::HasSubstr;

std::string Join(const grpc::ByteBuffer& wire) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(wire.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// The bytes in slices of at most `piece` bytes, with empty slices between.
grpc::ByteBuffer Cut(const std::string& bytes, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += piece) {
    slices.emplace_back(bytes.substr(i, piece));
    slices.emplace_back();
  }
  if (slices.empty()) slices.emplace_back();
  return grpc::ByteBuffer(slices.data(), slices.size());
}

ExpertServiceRunRequest Header() {
  ExpertServiceRunRequest header;
  header.mutable_key()->set_router_id(0x1234567890abcdef);
  header.mutable_key()->set_step(300);
  header.set_dtype(WIRE_DTYPE_FLOAT32);
  header.set_n_rows(5);
  header.set_d_model(1000);
  for (int expert : {1, 4, 7}) header.add_experts(expert);
  for (int rows : {5, 2, 1}) header.add_n_rows_of_expert(rows);
  for (int row : {0, 1, 2, 3, 4, 0, 3, 2}) header.add_rows(row);
  header.set_traceparent("00-abc-def-01");
  return header;
}

PayloadBuffer Payload(size_t bytes) {
  PayloadBuffer payload(bytes);
  for (size_t i = 0; i < bytes; ++i) payload.as<uint8_t>()[i] = static_cast<uint8_t>(i * 131 >> 3);
  return payload;
}

std::string Bytes(const PayloadBuffer& payload) {
  return std::string(static_cast<const char*>(payload.data()), payload.size_bytes());
}

std::string Bytes(const FramePayload& payload) {
  std::string bytes(payload.size_bytes(), '\0');
  payload.CopyTo(bytes.data());
  return bytes;
}

class FrameSizes : public ::testing::TestWithParam<size_t> {};

TEST_P(FrameSizes, WritesWhatGeneratedCodeWrites) {
  const PayloadBuffer payload = Payload(GetParam());
  ExpertServiceRunRequest message = Header();
  message.set_hidden_states(Bytes(payload));
  EXPECT_EQ(Join(WriteFrame(Header(), payload)), message.SerializeAsString());
}

TEST_P(FrameSizes, ReadsWhatGeneratedCodeWrites) {
  ExpertServiceRunRequest message = Header();
  message.set_hidden_states(Bytes(Payload(GetParam())));
  for (size_t piece : {size_t{1}, size_t{7}, size_t{4096}, size_t{1} << 30}) {
    if (GetParam() / piece > 100000) continue;
    ExpertServiceRunRequest header;
    FramePayload payload;
    ASSERT_TRUE(ReadFrame(Cut(message.SerializeAsString(), piece), &header, &payload).ok());
    EXPECT_EQ(header.SerializeAsString(), Header().SerializeAsString()) << piece;
    EXPECT_EQ(Bytes(payload), message.hidden_states()) << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Frame, FrameSizes,
                         ::testing::Values(0, 1, 127, 128, 8192, (16 << 10) - 1, 16 << 10,
                                           (16 << 10) + 1, 1 << 20, 5 << 20));

TEST(Frame, ReadsFieldsAfterThePayload) {
  // Fields in two parts around the payload, then a second payload: the last one wins.
  ExpertServiceRunRequest front, back;
  front.set_n_rows(3);
  front.add_experts(1);
  back.set_n_rows(4);
  back.add_experts(2);
  ExpertServiceRunRequest first, second;
  first.set_hidden_states("first");
  second.set_hidden_states("second");
  const std::string wire = front.SerializeAsString() + first.SerializeAsString() +
                           back.SerializeAsString() + second.SerializeAsString();
  ExpertServiceRunRequest expected;
  ASSERT_TRUE(expected.ParseFromString(wire));
  for (size_t piece : {1, 3, 1000}) {
    ExpertServiceRunRequest header;
    FramePayload payload;
    ASSERT_TRUE(ReadFrame(Cut(wire, piece), &header, &payload).ok());
    EXPECT_EQ(Bytes(payload), "second");
    header.set_hidden_states("second");
    EXPECT_EQ(header.SerializeAsString(), expected.SerializeAsString());
  }
}

TEST(Frame, ReplacesWhatTheHeaderHeldBefore) {
  ExpertServiceRunRequest header = Header();
  FramePayload payload;
  ASSERT_TRUE(ReadFrame(WriteFrame(Header(), Payload(9)), &header, &payload).ok());
  ASSERT_TRUE(ReadFrame(WriteMessage(ExpertServiceRunRequest()), &header, &payload).ok());
  EXPECT_EQ(header.ByteSizeLong(), 0);
  EXPECT_TRUE(payload.empty());
}

TEST(Frame, KeepsThePayloadAliveUntilItIsSent) {
  grpc::ByteBuffer wire;
  {
    const PayloadBuffer payload = Payload(100000);
    wire = WriteFrame(Header(), payload);
  }
  // Memory that went back to the pool would be handed out and overwritten here.
  PayloadBuffer other(100000);
  std::memset(other.data(), 0xee, other.size_bytes());
  ExpertServiceRunRequest header;
  FramePayload read;
  ASSERT_TRUE(ReadFrame(wire, &header, &read).ok());
  EXPECT_EQ(Bytes(read), Bytes(Payload(100000)));
}

// Whatever ReadFrame accepts, generated code reads the same; neither crashes.
void ExpectAgreement(const std::string& bytes, size_t piece) {
  AttentionServiceRunRequest header, expected;
  FramePayload payload;
  if (!ReadFrame(Cut(bytes, piece), &header, &payload).ok()) return;
  ASSERT_TRUE(expected.ParseFromString(bytes)) << absl::BytesToHexString(bytes);
  EXPECT_EQ(Bytes(payload), expected.hidden_states());
  header.set_hidden_states(Bytes(payload));
  EXPECT_EQ(header.SerializeAsString(), expected.SerializeAsString());
}

AttentionServiceRunRequest RichMessage() {
  AttentionServiceRunRequest message;
  message.mutable_key()->set_layer(3);
  message.add_close(77);
  auto* open = message.add_open();
  open->set_sequence_id(5);
  open->mutable_sampling()->set_temperature(0.5f);
  (*open->mutable_sampling()->mutable_logit_bias())[12] = -1.5f;
  auto* span = message.add_spans();
  span->set_sequence_id(5);
  span->set_n_tokens(300);
  for (int i = 0; i < 10; ++i) message.add_token_ids(i * 1000);
  message.set_traceparent("00-11-22-00");
  message.set_hidden_states(std::string(300, 'x'));
  return message;
}

TEST(Frame, RefusesOrReadsEveryTruncation) {
  const std::string bytes = RichMessage().SerializeAsString();
  int refused = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    for (size_t piece : {1, 5, 1000}) ExpectAgreement(bytes.substr(0, size), piece);
    AttentionServiceRunRequest header;
    FramePayload payload;
    const absl::Status status = ReadFrame(Cut(bytes.substr(0, size), 64), &header, &payload);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      ++refused;
    }
  }
  EXPECT_GT(refused, 300);  // every cut inside the payload at least
}

TEST(Frame, SurvivesFlippedBytes) {
  google::protobuf::LogSilencer silencer;  // it reports broken UTF-8
  const std::string bytes = RichMessage().SerializeAsString();
  std::mt19937 random(20240607);
  for (int round = 0; round < 20000; ++round) {
    std::string broken = bytes.substr(0, bytes.size() - random() % 4 * 60);
    for (int flips = 1 + random() % 3; flips > 0; --flips) {
      broken[random() % broken.size()] = static_cast<char>(random());
    }
    ExpectAgreement(broken, 1 + random() % 400);
  }
}

TEST(Frame, RefusesMoreHeaderPartsThanAnyoneWrites) {
  std::string wire;
  for (int i = 0; i < 1000; ++i) wire += std::string("\x18\x01\x7a\x00", 4);
  ExpertServiceRunRequest header;
  FramePayload payload;
  EXPECT_EQ(ReadFrame(Cut(wire, 4096), &header, &payload).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Frame, RefusesHeadersPastTheLimit) {
  ExpertServiceRunRequest message;
  message.set_traceparent(std::string(kMaxFrameHeaderBytes, 'x'));
  ExpertServiceRunRequest header;
  FramePayload payload;
  const absl::Status status = ReadFrame(WriteMessage(message), &header, &payload);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(kMaxFrameHeaderBytes)));
}

TEST(Frame, RefusesPayloadsPastTheLimit) {
  ExpertServiceRunRequest header;
  FramePayload payload;
  const absl::Status status =
      ReadFrame(WriteFrame(header, PayloadBuffer(kMaxFramePayloadBytes + 1)), &header, &payload);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(kMaxFramePayloadBytes)));
}

TEST(Frame, RefusesAMessageThatNeverCame) {
  ExpertServiceRunRequest header;
  FramePayload payload;
  EXPECT_FALSE(ReadFrame(grpc::ByteBuffer(), &header, &payload).ok());
  EXPECT_FALSE(ReadMessage(grpc::ByteBuffer(), 100, &header).ok());
}

TEST(Message, ReadsWholeMessagesUpToTheLimit) {
  const AttentionServiceRunRequest message = RichMessage();
  const std::string bytes = message.SerializeAsString();
  AttentionServiceRunRequest read;
  for (size_t piece : {1, 1000}) {
    ASSERT_TRUE(ReadMessage(Cut(bytes, piece), bytes.size(), &read).ok());
    EXPECT_EQ(read.SerializeAsString(), bytes);
  }
  EXPECT_FALSE(ReadMessage(Cut(bytes, 100), bytes.size() - 1, &read).ok());
  EXPECT_FALSE(ReadMessage(Cut(bytes.substr(0, 40), 100), 1000, &read).ok());
}

TEST(Shape, NamesBothNumbers) {
  ExpertServiceRunRequest header;
  FramePayload payload;
  ASSERT_TRUE(ReadFrame(WriteFrame(header, Payload(48)), &header, &payload).ok());
  EXPECT_TRUE(CheckShape(payload, WIRE_DTYPE_FLOAT32, 3, 4).ok());
  EXPECT_TRUE(CheckShape(payload, WIRE_DTYPE_BFLOAT16, 6, 4).ok());
  const absl::Status status = CheckShape(payload, WIRE_DTYPE_FLOAT32, 3, 5);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("48"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("60"));
}

TEST(Shape, RefusesNumbersThatOverflow) {
  ExpertServiceRunRequest header;
  FramePayload payload;
  ASSERT_TRUE(ReadFrame(WriteMessage(header), &header, &payload).ok());
  EXPECT_TRUE(CheckShape(payload, WIRE_DTYPE_FLOAT32, 0, 4096).ok());
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(CheckShape(payload, WIRE_DTYPE_FLOAT32, uint64_t{1} << 62, 4).ok());
  EXPECT_FALSE(CheckShape(payload, WIRE_DTYPE_FLOAT32, uint64_t{1} << 32, uint64_t{1} << 32).ok());
  EXPECT_FALSE(CheckShape(payload, WIRE_DTYPE_BFLOAT16, huge, huge).ok());
  EXPECT_FALSE(CheckShape(payload, WIRE_DTYPE_UNSPECIFIED, 0, 0).ok());
  EXPECT_FALSE(CheckShape(payload, static_cast<WireDtype>(99), 0, 0).ok());
  EXPECT_FALSE(MakePayload(WIRE_DTYPE_FLOAT32, huge, 2).ok());
  EXPECT_EQ(MakePayload(WIRE_DTYPE_BFLOAT16, 3, 5)->size_bytes(), 30);
}

TEST(Floats, ComeBackBitForBit) {
  std::vector<float> values = {0.0f, -0.0f, 1.5f, -3.25e-20f, INFINITY, -INFINITY, 7e37f};
  for (int i = 0; i < 1000; ++i) values.push_back(std::sin(i * 0.7f) * std::exp2(i % 40 - 20));
  for (WireDtype dtype : {WIRE_DTYPE_FLOAT32, WIRE_DTYPE_BFLOAT16}) {
    auto buffer = MakePayload(dtype, 1, values.size());
    ASSERT_TRUE(buffer.ok());
    WriteFloats(dtype, absl::MakeSpan(values).subspan(0, 10), 0, &*buffer);
    WriteFloats(dtype, absl::MakeSpan(values).subspan(10), 10, &*buffer);
    const std::string bytes = Join(WriteFrame(Header(), *buffer));
    for (size_t piece : {1, 3, 5, 333, 4096}) {  // elements lie across slices
      ExpertServiceRunRequest header;
      FramePayload payload;
      ASSERT_TRUE(ReadFrame(Cut(bytes, piece), &header, &payload).ok());
      for (size_t n : {size_t{1}, size_t{7}, values.size()}) {  // read at a time
        std::vector<float> read(values.size());
        FloatReader reader(payload, dtype);
        for (size_t i = 0; i < values.size(); i += n) {
          const size_t some = std::min(n, values.size() - i);
          if (i % 3 == 1) {
            reader.Skip(some);
            std::copy_n(&values[i], some, &read[i]);
          } else {
            reader.Read(&read[i], some);
          }
        }
        for (size_t i = 0; i < values.size(); ++i) {
          const bool skipped = i / n * n % 3 == 1;
          const float want = dtype == WIRE_DTYPE_FLOAT32 || skipped
                                 ? values[i]
                                 : BF16ToFloat(FloatToBF16(values[i]));
          ASSERT_EQ(std::memcmp(&read[i], &want, sizeof want), 0) << i << " " << piece;
        }
      }
    }
  }
}

TEST(Floats, LeaveAsTheyWereComputed) {
  EXPECT_FALSE(OutgoingRows::Make(WIRE_DTYPE_UNSPECIFIED, 1, 1).ok());
  EXPECT_EQ(OutgoingRows::Make(WIRE_DTYPE_FLOAT32, 0, 8)->TakePayload().size_bytes(), 0);
  for (WireDtype dtype : {WIRE_DTYPE_FLOAT32, WIRE_DTYPE_BFLOAT16}) {
    absl::StatusOr<OutgoingRows> rows = OutgoingRows::Make(dtype, 3, 1001);
    ASSERT_TRUE(rows.ok());
    std::vector<float> values;
    for (int i = 0; i < 3003; ++i) values.push_back(rows->data()[i] = std::sin(i * 0.7f));
    PayloadBuffer expected = *MakePayload(dtype, 3, 1001);
    WriteFloats(dtype, values, 0, &expected);
    EXPECT_EQ(Bytes(rows->TakePayload()), Bytes(expected));
  }
}

TEST(PayloadBuffer, ReusesMemoryOnlyWhenNobodyHoldsIt) {
  PayloadBuffer first(300000);
  const void* memory = first.data();
  PayloadBuffer copy = first;
  first = PayloadBuffer();
  PayloadBuffer second(300000);
  EXPECT_NE(second.data(), memory);
  copy = PayloadBuffer();
  PayloadBuffer third(290000);
  EXPECT_EQ(third.data(), memory);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(third.data()) % 64, 0);
}

TEST(PayloadBuffer, GivesMemoryBackToWhereItCameFrom) {
  static std::set<void*> there;
  static bool is_short = false;
  const HostMemory memory = {[](size_t bytes) {
                               void* block = is_short ? nullptr : HeapMemory().allocate(bytes);
                               if (block != nullptr) there.insert(block);
                               return block;
                             },
                             [](void* block) {
                               EXPECT_EQ(there.erase(block), 1);
                               HeapMemory().free(block);
                             }};
  PayloadBuffer old(50000);
  SetPayloadMemory(memory);
  PayloadBuffer first(50000);
  EXPECT_EQ(there, std::set<void*>{first.data()});
  old = PayloadBuffer();  // not to the pool
  PayloadBuffer second(50000);
  EXPECT_EQ(there, (std::set<void*>{first.data(), second.data()}));
  first = PayloadBuffer();  // to the pool
  EXPECT_EQ(there.size(), 2);
  is_short = true;
  PayloadBuffer third(200000);  // from the heap, and so are all from now on
  EXPECT_NE(third.data(), nullptr);
  EXPECT_EQ(there, std::set<void*>{second.data()});
  is_short = false;
  PayloadBuffer fourth(50000);
  EXPECT_EQ(there, std::set<void*>{second.data()});
  second = PayloadBuffer();
  EXPECT_TRUE(there.empty());
}

TEST(PayloadBuffer, WhatThePoolHasIsGivenBackBeforeMemoryIsShort) {
  static std::map<void*, size_t> there;
  SetPayloadMemory({[](size_t bytes) -> void* {
                      size_t used = bytes;
                      for (const auto& [block, size] : there) used += size;
                      if (used > size_t{1} << 20) return nullptr;
                      void* const block = HeapMemory().allocate(bytes);
                      there[block] = bytes;
                      return block;
                    },
                    [](void* block) {
                      there.erase(block);
                      HeapMemory().free(block);
                    }});
  { const PayloadBuffer small(1 << 19), smaller(1 << 18); }
  EXPECT_EQ(there.size(), 2);
  const PayloadBuffer large(1 << 20);
  EXPECT_EQ(there.count(const_cast<void*>(large.data())), 1);
  SetPayloadMemory(HeapMemory());
}

TEST(PayloadBuffer, LargeOnesDoNotTakeTheRoomOfSmallOnes) {
  static int n_allocated = 0;
  SetPayloadMemory({[](size_t bytes) {
                      ++n_allocated;
                      return HeapMemory().allocate(bytes);
                    },
                    [](void* block) { HeapMemory().free(block); }});
  { const PayloadBuffer a(kPooledBytes / 2), b(kPooledBytes / 4), c(kPooledBytes / 4); }
  EXPECT_EQ(n_allocated, 3);
  for (int i = 0; i < 10; ++i) {
    const PayloadBuffer x(1 << 20), y(2 << 20);
  }
  EXPECT_EQ(n_allocated, 5);
  SetPayloadMemory(HeapMemory());
}

TEST(PayloadBuffer, TakesAnySize) {
  EXPECT_EQ(PayloadBuffer(0).data(), nullptr);
  for (size_t bytes : {size_t{1}, size_t{4096}, size_t{4097}, (size_t{128} << 20) + 1}) {
    PayloadBuffer buffer(bytes);
    buffer.as<uint8_t>()[bytes - 1] = 1;
    EXPECT_EQ(buffer.size_bytes(), bytes);
  }
}

}  // namespace
}  // namespace gatefold
