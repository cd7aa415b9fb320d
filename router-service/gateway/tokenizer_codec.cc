#include "router-service/gateway/tokenizer_codec.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/chat_template/chat_template.h"
#include "gatefold/tokenizer/stream_decoder.h"
#include "router-service/gateway/content_guard.h"

namespace gatefold {
namespace {

class TokenizerDecoder final : public TextCodec::Decoder {
 public:
  TokenizerDecoder(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt_tail)
      : tokenizer_(*tokenizer), decoder_(tokenizer, /*skip_special_tokens=*/true, prompt_tail) {}

  // Decoding follows the reference and shows special tokens whose spelling the normaliser changes
  // (as in some copies of Llama-2); generated text never does.
  std::string Push(int32_t token_id) override {
    return tokenizer_.IsSpecial(token_id) ? std::string() : decoder_.Push(token_id);
  }
  std::string Finish() override { return decoder_.Finish(); }

 private:
  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
};

std::vector<std::string> SpecialTokens(const Tokenizer& tokenizer) {
  std::vector<std::string> spellings;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsSpecial(id)) spellings.push_back(tokenizer.TokenBytes(id));
  }
  return spellings;
}

class TokenizerCodec final : public TextCodec {
 public:
  TokenizerCodec(std::unique_ptr<Tokenizer> tokenizer, ChatRenderer renderer)
      : tokenizer_(std::move(tokenizer)),
        renderer_(std::move(renderer)),
        guard_(SpecialTokens(*tokenizer_)) {}

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const override {
    return tokenizer_->Encode(text, {options.add_special, options.parse_special});
  }

  bool has_chat_template() const override { return renderer_ != nullptr; }

  absl::StatusOr<std::vector<int32_t>> EncodeConversation(const std::vector<ChatMessage>& messages,
                                                          bool parse_special) const override;

  std::unique_ptr<Decoder> NewDecoder(absl::Span<const int32_t> prompt) const override {
    return std::make_unique<TokenizerDecoder>(tokenizer_.get(), Tail(prompt));
  }
  std::string Decode(const std::vector<int32_t>& token_ids, bool skip_special) const override {
    return tokenizer_->Decode(token_ids, skip_special);
  }
  std::string TokenBytes(int32_t token_id) const override {
    return tokenizer_->TokenBytes(token_id);
  }

 private:
  absl::Span<const int32_t> Tail(absl::Span<const int32_t> prompt) const;

  const std::unique_ptr<Tokenizer> tokenizer_;
  const ChatRenderer renderer_;
  const ContentGuard guard_;
};

// Enough of a prompt to go on from. Some tokenizers decode a run of single-byte tokens as a whole,
// so it starts where there is a longer one, at a character's border.
absl::Span<const int32_t> TokenizerCodec::Tail(absl::Span<const int32_t> prompt) const {
  constexpr size_t kEnough = 4, kLimit = 1024;
  size_t n = std::min(kEnough, prompt.size());
  while (n < std::min(kLimit, prompt.size())) {
    const std::string first = tokenizer_->TokenBytes(prompt[prompt.size() - n]);
    if (first.size() > 1 && FindInvalidUtf8(first) == kValidUtf8) break;
    ++n;
  }
  return prompt.last(n);
}

absl::StatusOr<std::vector<int32_t>> TokenizerCodec::EncodeConversation(
    const std::vector<ChatMessage>& messages, bool parse_special) const {
  GF_CHECK(has_chat_template());
  std::vector<ChatMessage> guarded = messages;
  ContentGuard::Marks marks;
  if (!parse_special) {
    std::vector<std::string*> contents;
    for (ChatMessage& message : guarded) contents.push_back(&message.content);
    marks = guard_.Guard(contents);
  }
  GF_ASSIGN_OR_RETURN(const std::string rendered, renderer_(guarded));
  std::vector<int32_t> ids;
  for (const ContentGuard::Part& part : guard_.Split(rendered, marks)) {
    // What comes first, such as BOS, is in the template.
    GF_ASSIGN_OR_RETURN(const std::vector<int32_t> more,
                        tokenizer_->Encode(part.text, {false, !part.literal}));
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

// Null if the folder has no template. One that cannot be read costs only conversations, and each of
// them is told why.
ChatRenderer LoadRenderer(const std::string& model_dir) {
  absl::StatusOr<ChatTemplate> chat_template = LoadChatTemplate(model_dir);
  if (absl::IsNotFound(chat_template.status())) return nullptr;
  if (!chat_template.ok()) {
    const std::string reason(chat_template.status().message());
    LogEvent(LogLevel::kWarning, "chat_template_unsupported",
             {{"model", model_dir}, {"error", reason}});
    return [reason](const std::vector<TextCodec::ChatMessage>&) {
      return Annotate(FeatureUnsupported("the model's chat template"), reason);
    };
  }
  return [chat = *std::move(chat_template)](
             const std::vector<TextCodec::ChatMessage>& messages) -> absl::StatusOr<std::string> {
    ChatTemplateInputs inputs;
    for (const auto& message : messages) inputs.messages.push_back({message.role, message.content});
    return chat.Render(inputs);
  };
}

}  // namespace

std::shared_ptr<const TextCodec> MakeTokenizerCodec(std::unique_ptr<Tokenizer> tokenizer,
                                                    ChatRenderer renderer) {
  return std::make_shared<const TokenizerCodec>(std::move(tokenizer), std::move(renderer));
}

absl::StatusOr<std::shared_ptr<const TextCodec>> LoadTokenizerCodec(const std::string& model_dir) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(model_dir);
  if (absl::IsNotFound(tokenizer.status())) {
    LogEvent(LogLevel::kWarning, "no_tokenizer", {{"model", model_dir}});
    return std::shared_ptr<const TextCodec>();
  }
  GF_RETURN_IF_ERROR(tokenizer.status());
  return MakeTokenizerCodec(*std::move(tokenizer), LoadRenderer(model_dir));
}

}  // namespace gatefold
