#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "router-service/gateway/stop_matcher.h"
#include "router-service/gateway/text_codec.h"

namespace gatefold {

// The text side of one candidate: from its tokens to text without stop strings, always valid UTF-8.
// Depends on the tokens alone, so feeding tokens again restores it exactly; that is what resuming
// does. Threads: one at a time.
class CandidateText {
 public:
  struct Piece {
    std::string text;
    std::optional<std::string> matched_stop;  // the text ends here
  };

  // `codec` may be null (a model without tokenizer): then there is no text, and no stop strings
  // may be given. Before `min_output_tokens` tokens no stop string ends the text.
  CandidateText(const TextCodec* codec, absl::Span<const int32_t> prompt,
                std::vector<std::string> stops, int min_output_tokens);

  Piece Push(int32_t token_id);

  // After the last token: everything held back. Empty after a matched stop.
  Piece Finish();

 private:
  Piece Match(const std::string& text);

  std::unique_ptr<TextCodec::Decoder> decoder_;  // null: no text
  StopMatcher matcher_;
  const int min_output_tokens_;
  int n_tokens_ = 0;
  bool ended_ = false;
};

}  // namespace gatefold
