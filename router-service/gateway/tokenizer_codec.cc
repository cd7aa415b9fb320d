#include "router-service/gateway/tokenizer_codec.h"

#include <utility>

#include "absl/types/span.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tokenizer/stream_decoder.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace gatefold {
namespace {

class TokenizerDecoder final : public TextCodec::Decoder {
 public:
  TokenizerDecoder(const Tokenizer* tokenizer, absl::Span<const int32_t> prompt_tail)
      : decoder_(tokenizer, /*skip_special_tokens=*/true, prompt_tail) {}
  std::string Push(int32_t token_id) override { return decoder_.Push(token_id); }
  std::string Finish() override { return decoder_.Finish(); }

 private:
  StreamDecoder decoder_;
};

class TokenizerCodec final : public TextCodec {
 public:
  explicit TokenizerCodec(std::unique_ptr<Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {
    // Any text will do to tell a decoder that it goes on after some.
    absl::StatusOr<std::vector<int32_t>> ids = tokenizer_->Encode("a", {false, false});
    if (ids.ok()) some_text_ = *std::move(ids);
  }

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const override {
    return tokenizer_->Encode(text, {options.add_special, options.parse_special});
  }
  bool has_chat_template() const override { return false; }
  absl::StatusOr<std::vector<int32_t>> EncodeConversation(const std::vector<ChatMessage>&,
                                                          bool) const override {
    return absl::InvalidArgumentError("the model has no chat template");
  }
  std::unique_ptr<Decoder> NewDecoder(bool continued) const override {
    return std::make_unique<TokenizerDecoder>(
        tokenizer_.get(), continued ? absl::MakeConstSpan(some_text_) : absl::Span<const int32_t>());
  }
  std::string Decode(const std::vector<int32_t>& token_ids, bool skip_special) const override {
    return tokenizer_->Decode(token_ids, skip_special);
  }
  std::string TokenBytes(int32_t token_id) const override {
    return tokenizer_->TokenBytes(token_id);
  }

 private:
  const std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<int32_t> some_text_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const TextCodec>> LoadTokenizerCodec(const std::string& model_dir) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(model_dir);
  if (absl::IsNotFound(tokenizer.status())) {
    LogEvent(LogLevel::kWarning, "no_tokenizer", {{"model", model_dir}});
    return std::shared_ptr<const TextCodec>();
  }
  GF_RETURN_IF_ERROR(tokenizer.status());
  return std::make_shared<const TokenizerCodec>(*std::move(tokenizer));
}

}  // namespace gatefold
