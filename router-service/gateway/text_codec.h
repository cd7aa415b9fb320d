#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gatefold {

// The gateway's door to everything that turns text into token ids and back. Threads: safe; a
// Decoder belongs to one generation and is used by one thread at a time.
class TextCodec {
 public:
  // Ids in, text out, as the ids come. Every text is valid UTF-8: bytes of an incomplete character
  // are held back, special tokens come out as nothing. Texts joined equal the decode of all ids.
  class Decoder {
   public:
    virtual ~Decoder() = default;
    virtual std::string Push(int32_t token_id) = 0;
    // What was held back, incomplete characters as U+FFFD.
    virtual std::string Finish() = 0;
  };

  struct ChatMessage {
    std::string role;
    std::string content;
  };

  struct EncodeOptions {
    bool add_special = true;    // what the tokenizer adds by itself, such as BOS
    bool parse_special = true;  // special tokens written out in the text become their ids
  };

  virtual ~TextCodec() = default;

  // Errors: InvalidArgument for what the tokenizer cannot encode.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const = 0;

  virtual bool has_chat_template() const = 0;

  // The conversation as the model's chat template writes it, ready for an answer, as ids. Special
  // tokens in the contents stay text unless `parse_special`. Needs has_chat_template().
  // Errors: InvalidArgument with what the template says against it.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeConversation(
      const std::vector<ChatMessage>& messages, bool parse_special) const = 0;

  // For text that goes on after the prompt: its leading space stays, and a character that the
  // prompt left unfinished is finished. Time does not grow with the prompt.
  virtual std::unique_ptr<Decoder> NewDecoder(absl::Span<const int32_t> prompt) const = 0;

  virtual std::string Decode(const std::vector<int32_t>& token_ids, bool skip_special) const = 0;

  // Raw bytes of one token, which may be part of a character. Empty for ids without text.
  virtual std::string TokenBytes(int32_t token_id) const = 0;
};

}  // namespace gatefold
