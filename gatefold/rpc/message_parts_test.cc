#include "gatefold/rpc/message_parts.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/message.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using google::protobuf::Message;
using google::protobuf::UnknownFieldSet;
using inference::v1::GenerateTextRequest;
using inference::v1::StreamGenerateTextRequest;
using ::testing::HasSubstr;

grpc::ByteBuffer Cut(const std::string& bytes, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += piece) slices.emplace_back(bytes.substr(i, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::Status Check(const std::string& bytes, size_t max_parts, size_t piece = 1000) {
  return CheckParts(Cut(bytes, piece), *StreamGenerateTextRequest::descriptor(), max_parts);
}

// `n` parts, no more and no fewer.
void ExpectParts(const std::string& bytes, size_t n) {
  for (const size_t piece : {1, 3, 1000}) {
    EXPECT_EQ(Check(bytes, n, piece), absl::OkStatus());
    if (n > 0) {
      EXPECT_EQ(Check(bytes, n - 1, piece).code(), absl::StatusCode::kInvalidArgument);
    }
  }
}

std::string Repeated(const std::string& bytes, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += bytes;
  return all;
}

// A field below 16, of fewer than 128 bytes.
std::string Field(int number, const std::string& bytes) {
  const char head[] = {static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())};
  return std::string(head, 2) + bytes;
}

std::string Request(const std::string& fields) { return Field(1, fields); }

TEST(MessageParts, CountsStringsMessagesAndEntries) {
  StreamGenerateTextRequest message;
  ExpectParts(message.SerializeAsString(), 0);
  auto* request = message.mutable_request();
  ExpectParts(message.SerializeAsString(), 1);
  request->set_request_id("id");
  request->mutable_prompt()->mutable_conversation();
  ExpectParts(message.SerializeAsString(), 4);
  for (int i = 0; i < 1000; ++i) {
    auto* each = request->mutable_prompt()->mutable_conversation()->add_messages();
    if (i < 10) each->set_role("user");
  }
  ExpectParts(message.SerializeAsString(), 4 + 1000 + 10);
  for (int id = 0; id < 20; ++id) (*request->mutable_config()->mutable_logit_bias())[id] = 1;
  request->mutable_config()->add_stop_sequences("");
  ExpectParts(message.SerializeAsString(), 4 + 1000 + 10 + 1 + 20 + 1);
}

TEST(MessageParts, IdsAreNoParts) {
  StreamGenerateTextRequest message;
  for (int i = 0; i < 100'000; ++i) message.add_resume_token_ids(i);
  ExpectParts(message.SerializeAsString(), 0);
  ExpectParts(Repeated("\x10\x05", 1000), 0);  // not packed
}

TEST(MessageParts, FieldsThatTheTypeDoesNotHaveAreParts) {
  ExpectParts(Repeated(std::string("\x78\x00", 2), 50), 50);  // a number
  ExpectParts(Repeated(std::string("\x7a\x00", 2), 50), 50);  // bytes
  ExpectParts(Repeated(absl::StrCat("\x7d", "abcd"), 50), 50);
  ExpectParts(Repeated(absl::StrCat("\x79", "abcdefgh"), 50), 50);
  // In a group every field counts, whatever its number: field 2 is ids outside of it.
  ExpectParts(Repeated("\x7b\x10\x05\x7c", 50) + "\x10\x05", 100);
  // The request's field 1 is a message outside of it, and its parts count.
  ExpectParts("\x7b" + Request("abc") + "\x7c" + Request(Field(5, "id")), 4);
  // A known number, but of another type.
  ExpectParts(Repeated(std::string("\x08\x00", 2), 50), 50);
  ExpectParts(Request(Field(7, "priority")), 2);
}

TEST(MessageParts, GroupsInGroupsTakeNoStack) {
  constexpr int kDepth = 1'000'000;
  ExpectParts(Repeated("\x7b", 1000) + Repeated("\x7c", 1000), 1000);
  EXPECT_EQ(Check(Repeated("\x7b", kDepth) + Repeated("\x7c", kDepth), kDepth), absl::OkStatus());
}

TEST(MessageParts, NamesTheFieldThatHasTooMany) {
  const std::string messages = Repeated(std::string("\x0a\x00", 2), 30);
  const absl::Status status = Check(Request(Field(2, Field(3, messages))), 20);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("gatefold.inference.v1.StreamGenerateTextRequest"),
                    HasSubstr("the limit is 20,"),
                    HasSubstr("gatefold.inference.v1.Conversation.messages")));
  EXPECT_THAT(std::string(Check(Request(Repeated("\x78\x01", 30)), 20).message()),
              HasSubstr("field 15 of gatefold.inference.v1.GenerateTextRequest"));
}

TEST(MessageParts, StopsAtThePartThatIsTooMany) {
  // What comes after it is malformed, and would be found to be.
  const std::string bytes = Repeated(std::string("\x78\x00", 2), 5) + "\x7f";
  EXPECT_THAT(std::string(Check(bytes, 4).message()), HasSubstr("the limit is 4"));
  EXPECT_THAT(std::string(Check(bytes, 6).message()), HasSubstr("malformed"));
}

TEST(MessageParts, RefusesWhatIsNoMessage) {
  EXPECT_FALSE(CheckParts(grpc::ByteBuffer(), *GenerateTextRequest::descriptor(), 9).ok());
  for (const std::string& bytes :
       {std::string("\x7a\x05xy"), std::string("\x00", 1), std::string("\x7b"), std::string("\x7c"),
        std::string("\x7f"), std::string("\x10"), std::string("\x7a\xff\xff\xff\xff\x0f"),
        absl::StrCat("\x7d", "abc"), Request("\x7b") + "\x7c"}) {
    EXPECT_EQ(Check(bytes, 100).code(), absl::StatusCode::kInvalidArgument) << bytes;
  }
}

size_t Parts(const UnknownFieldSet& fields) {
  size_t n = fields.field_count();
  for (int i = 0; i < fields.field_count(); ++i) {
    if (fields.field(i).type() == google::protobuf::UnknownField::TYPE_GROUP) {
      n += Parts(fields.field(i).group());
    }
  }
  return n;
}

// Of a message that was parsed, itself not counted.
size_t Parts(const Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  size_t n = Parts(reflection.GetUnknownFields(message));
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    const int size = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    if (field->message_type() == nullptr) {
      n += field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING ? size : 0;
      continue;
    }
    for (int i = 0; i < size; ++i) {
      n += 1 + Parts(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                          : reflection.GetMessage(message, field));
    }
  }
  return n;
}

TEST(MessageParts, CountsNoFewerThanParsingMakesWhateverTheBytes) {
  google::protobuf::LogSilencer silencer;  // it reports broken UTF-8
  StreamGenerateTextRequest message;
  auto* request = message.mutable_request();
  request->set_model("model");
  for (const char* role : {"system", "user", "assistant"}) {
    auto* each = request->mutable_prompt()->mutable_conversation()->add_messages();
    each->set_role(role);
    each->set_content("some words");
  }
  for (int id = 0; id < 3; ++id) (*request->mutable_config()->mutable_logit_bias())[id] = 1;
  for (const char* stop : {"a", "b"}) request->mutable_config()->add_stop_sequences(stop);
  request->mutable_config()->mutable_constraint()->mutable_choices()->add_choices("c");
  for (int id = 0; id < 9; ++id) request->mutable_config()->add_stop_token_ids(id);
  request->mutable_config()->set_seed(7);
  request->mutable_output()->set_logprobs(true);
  request->set_request_id("id");
  message.add_resume_token_ids(1000);
  const std::string bytes = message.SerializeAsString();
  std::mt19937 random(20240607);
  int n_parsed = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::string broken = bytes;
    for (int flips = random() % 4; flips > 0; --flips) {
      broken[random() % broken.size()] = static_cast<char>(random());
    }
    StreamGenerateTextRequest parsed;
    if (!parsed.ParseFromString(broken)) continue;
    ++n_parsed;
    const size_t n = Parts(parsed);
    ASSERT_EQ(Check(broken, broken.size(), 1 + random() % 400), absl::OkStatus());
    ASSERT_FALSE(n > 0 && Check(broken, n - 1).ok()) << parsed.DebugString();
  }
  EXPECT_GT(n_parsed, 10'000);
}

}  // namespace
}  // namespace gatefold
