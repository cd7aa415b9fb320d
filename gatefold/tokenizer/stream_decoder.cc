#include "gatefold/tokenizer/stream_decoder.h"

namespace gatefold {
namespace {

// A model that says nothing but broken bytes must not make the server hold them all.
constexpr size_t kMaxHeldBytes = 1024;

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens)
    : assembler_(&tokenizer->decode_table(), skip_special_tokens) {}

StreamDecoder::StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens,
                             absl::Span<const int32_t> prompt_tail)
    : StreamDecoder(tokenizer, skip_special_tokens) {
  for (const int32_t id : prompt_tail) assembler_.Add(id);
  std::string already_there;
  assembler_.TakeComplete(&already_there);
  has_new_ = false;
}

std::string StreamDecoder::Push(int32_t id) {
  const size_t n_held = assembler_.held_bytes();
  assembler_.Add(id);
  has_new_ = has_new_ || assembler_.held_bytes() != n_held;
  std::string text;
  if (assembler_.Ready()) {
    assembler_.TakeAll(&text);
  } else if (assembler_.held_bytes() > kMaxHeldBytes) {
    assembler_.TakeComplete(&text);
  }
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text;
  if (has_new_) assembler_.TakeAll(&text);
  return text;
}

}  // namespace gatefold
