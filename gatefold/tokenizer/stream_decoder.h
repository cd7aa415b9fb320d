#pragma once

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "gatefold/tokenizer/text_assembler.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace gatefold {

// Turns the tokens of one sequence into text as they come. What is given out is always whole
// UTF-8 and never changes; together it is what Decode() makes of all ids. Emits when the
// reference's DecodeStream does: once the text has grown and does not end in U+FFFD.
// One exception to both: byte tokens that were a character and turn out to belong to a run that is
// not UTF-8 have been given out as the character.
// Threads: one at a time.
class StreamDecoder {
 public:
  // `tokenizer` outlives the decoder.
  StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens);
  // For text that goes on from a prompt: the leading space of the first new token stays, and a
  // character that the prompt left unfinished is finished, or shown as broken before what follows
  // instead. A few of its last ids are enough.
  StreamDecoder(const Tokenizer* tokenizer, bool skip_special_tokens,
                absl::Span<const int32_t> prompt_tail);

  // Text that may be given out now; "" while a character is under way. Time: that of the token.
  std::string Push(int32_t id);
  // What was held back; unfinished characters become U+FFFD. Nothing may be pushed after it.
  std::string Finish();

 private:
  TextAssembler assembler_;
  bool has_new_ = true;  // bytes that are not the prompt's
};

}  // namespace gatefold
