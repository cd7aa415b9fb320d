#include "router-service/gateway/prompt_encoder.h"

#include <string>

#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"

namespace gatefold {
namespace {

using inference::v1::Prompt;

// What codec and template say is about the caller's text, so it names the caller's field. A text
// that exhausts the tokenizer would do so again: it must not look like an overload.
absl::Status AboutField(const char* field, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status) && !absl::IsResourceExhausted(status)) return status;
  const absl::string_view message = status.message();
  return BadField(field, message);
}

absl::StatusOr<std::vector<int32_t>> EncodeText(const Prompt& prompt, const TextCodec& codec) {
  TextCodec::EncodeOptions options;
  if (prompt.has_add_special_tokens()) options.add_special = prompt.add_special_tokens();
  if (prompt.has_parse_special_tokens()) options.parse_special = prompt.parse_special_tokens();
  absl::StatusOr<std::vector<int32_t>> ids = codec.Encode(prompt.text(), options);
  if (!ids.ok()) return AboutField("prompt.text", ids.status());
  return ids;
}

absl::StatusOr<std::vector<int32_t>> EncodeConversation(const Prompt& prompt,
                                                        const TextCodec& codec) {
  std::vector<TextCodec::ChatMessage> messages;
  for (const auto& message : prompt.conversation().messages()) {
    messages.push_back({message.role(), message.content()});
  }
  absl::StatusOr<std::vector<int32_t>> ids =
      codec.EncodeConversation(messages, prompt.parse_special_tokens());
  if (!ids.ok()) return AboutField("prompt.conversation", ids.status());
  return ids;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Prompt& prompt, const TextCodec* codec) {
  if (prompt.has_token_ids()) {
    return std::vector<int32_t>(prompt.token_ids().ids().begin(), prompt.token_ids().ids().end());
  }
  GF_CHECK(codec != nullptr);
  return prompt.has_text() ? EncodeText(prompt, *codec) : EncodeConversation(prompt, *codec);
}

}  // namespace gatefold
