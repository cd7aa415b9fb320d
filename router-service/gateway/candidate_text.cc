#include "router-service/gateway/candidate_text.h"

#include <utility>

#include "gatefold/base/check.h"

namespace gatefold {

CandidateText::CandidateText(const TextCodec* codec, absl::Span<const int32_t> prompt,
                             std::vector<std::string> stops, int min_output_tokens)
    : matcher_(std::move(stops)), min_output_tokens_(min_output_tokens) {
  if (codec != nullptr) decoder_ = codec->NewDecoder(prompt);
}

CandidateText::Piece CandidateText::Push(int32_t token_id) {
  ++n_tokens_;
  if (ended_ || decoder_ == nullptr) return {};
  return Match(decoder_->Push(token_id));
}

CandidateText::Piece CandidateText::Finish() {
  if (ended_ || decoder_ == nullptr) return {};
  Piece piece = Match(decoder_->Finish());
  piece.text += matcher_.Finish();
  ended_ = true;
  return piece;
}

CandidateText::Piece CandidateText::Match(const std::string& text) {
  StopMatcher::Result result = matcher_.Push(text, n_tokens_ >= min_output_tokens_);
  Piece piece;
  piece.text = std::move(result.text);
  if (result.matched.has_value()) {
    piece.matched_stop = matcher_.stop(*result.matched);
    ended_ = true;
  }
  return piece;
}

}  // namespace gatefold
