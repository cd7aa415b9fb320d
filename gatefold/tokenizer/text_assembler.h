#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/decode_table.h"

namespace gatefold {

// Puts the text of one sequence together from its tokens. What was taken out stays out, so taking
// while a code point is under way breaks it; Ready() says when not to.
class TextAssembler {
 public:
  // `table` outlives the assembler.
  TextAssembler(const DecodeTable* table, bool skip_special_tokens);

  // Ids that are unknown add nothing.
  void Add(int32_t id);
  // Whether there is new text, and its last character is complete and not U+FFFD.
  bool Ready() const;
  size_t held_bytes() const { return held_.size() + run_.size(); }

  // Moves the text held so far to the end of `out`; bytes that form no character become U+FFFD.
  void TakeAll(std::string* out);
  // The same, but leaves bytes that later ones may still complete.
  void TakeComplete(std::string* out);

 private:
  void AppendText(absl::string_view text);
  void AddByte(uint8_t byte);
  void CloseRun();
  bool OnlyStripped(absl::string_view text) const;

  const DecodeTable& table_;
  const bool skip_special_tokens_;
  bool first_ = true;
  int strip_left_;
  std::string held_;  // valid UTF-8
  // Bytes after it. kBytes: of all tokens; kByteFallback: of the byte tokens at the end.
  std::string run_;
  Utf8State run_state_;
  bool run_is_broken_ = false;
};

}  // namespace gatefold
