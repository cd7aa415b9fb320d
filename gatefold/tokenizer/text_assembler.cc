#include "gatefold/tokenizer/text_assembler.h"

#include <utility>

#include "absl/strings/match.h"

namespace gatefold {

using Rule = DecodeTable::Rule;

TextAssembler::TextAssembler(const DecodeTable* table, bool skip_special_tokens)
    : table_(*table), skip_special_tokens_(skip_special_tokens), strip_left_(table->strip_left()) {}

void TextAssembler::Add(int32_t id) {
  if (id < 0 || id >= table_.size() || !table_.Knows(id)) return;
  if (skip_special_tokens_ && table_.Skippable(id)) return;
  const absl::string_view text = first_ ? table_.FirstText(id) : table_.Text(id);
  if (table_.rule() == Rule::kBytes) {
    run_.append(text.data(), text.size());
  } else if (table_.IsByte(id)) {
    AddByte(static_cast<uint8_t>(text[0]));
  } else {
    CloseRun();
    if (table_.rule() == Rule::kSpaced && !first_) AppendText(" ");
    AppendText(text);
  }
  first_ = false;
}

void TextAssembler::AddByte(uint8_t byte) {
  run_.push_back(static_cast<char>(byte));
  if (run_state_.Feed(byte) == Utf8State::kInvalid) run_is_broken_ = true;
}

bool TextAssembler::OnlyStripped(absl::string_view text) const {
  const std::string& content = table_.strip_content();
  for (int i = 0; i < strip_left_ && absl::StartsWith(text, content); ++i) {
    text.remove_prefix(content.size());
  }
  return text.empty();
}

void TextAssembler::AppendText(absl::string_view text) {
  const std::string& content = table_.strip_content();
  while (strip_left_ > 0 && absl::StartsWith(text, content)) {
    text.remove_prefix(content.size());
    --strip_left_;
  }
  if (text.empty()) return;
  strip_left_ = 0;
  held_.append(text.data(), text.size());
}

bool TextAssembler::Ready() const {
  if (run_.empty()) return EndsInCodePoint(held_);
  if (run_is_broken_ || !EndsInCodePoint(run_)) return false;
  return !held_.empty() || !OnlyStripped(run_);
}

// A run of byte tokens is UTF-8 as a whole, or every byte of it is U+FFFD.
void TextAssembler::CloseRun() {
  if (run_is_broken_ || run_state_.partial()) {
    for (size_t i = 0; i < run_.size(); ++i) AppendText(kReplacement);
  } else {
    AppendText(run_);
  }
  run_.clear();
  run_state_.Reset();
  run_is_broken_ = false;
}

void TextAssembler::TakeAll(std::string* out) {
  if (table_.rule() == Rule::kBytes) {
    std::string text;
    AppendLossy(run_, &text);
    run_.clear();
    AppendText(text);
  } else {
    CloseRun();
  }
  out->append(held_);
  held_.clear();
}

void TextAssembler::TakeComplete(std::string* out) {
  const bool broken = run_is_broken_;
  const size_t n_tail = broken ? 0 : IncompleteTail(run_);
  const std::string tail = run_.substr(run_.size() - n_tail);
  run_.resize(run_.size() - n_tail);
  if (!broken) run_state_.Reset();
  TakeAll(out);
  if (table_.rule() == Rule::kBytes) {
    run_ = tail;
    return;
  }
  for (const char byte : tail) AddByte(static_cast<uint8_t>(byte));
  run_is_broken_ = broken;
}

}  // namespace gatefold
