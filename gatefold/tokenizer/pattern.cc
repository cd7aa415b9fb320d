#include "gatefold/tokenizer/pattern.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/status_macros.h"

namespace gatefold {

Pattern Pattern::Literal(absl::string_view text) {
  Pattern pattern;
  pattern.literal_ = std::string(text);
  return pattern;
}

absl::StatusOr<Pattern> Pattern::FromRegex(absl::string_view regex) {
  Pattern pattern;
  pattern.known_ = FindKnownPattern(regex);
  if (pattern.known_ == nullptr) {
    GF_ASSIGN_OR_RETURN(pattern.regex_, Regex::Compile(regex));
  }
  return pattern;
}

absl::StatusOr<Pattern> Pattern::FromJson(JsonFields* fields, const char* key) {
  JsonFields kinds(fields->RequiredObject(key), fields->PathOf(key));
  GF_RETURN_IF_ERROR(fields->status());
  if (kinds.Find("String") != nullptr) {
    const std::string text = kinds.RequiredString("String");
    GF_RETURN_IF_ERROR(kinds.status());
    return Literal(text);
  }
  const std::string regex = kinds.RequiredString("Regex");
  GF_RETURN_IF_ERROR(kinds.status());
  auto pattern = FromRegex(regex);
  if (!pattern.ok()) return Annotate(pattern.status(), kinds.PathOf("Regex"));
  return pattern;
}

absl::Status Pattern::FindAll(absl::string_view text, RegexScratch* scratch,
                              std::vector<Span>* matches) const {
  if (known_ != nullptr) {
    known_(text, matches);
    return absl::OkStatus();
  }
  if (regex_ != nullptr) return regex_->FindAll(text, scratch, matches);
  if (literal_.empty()) return absl::OkStatus();
  for (size_t i = text.find(literal_); i != absl::string_view::npos;
       i = text.find(literal_, i + literal_.size())) {
    matches->push_back({i, i + literal_.size()});
  }
  return absl::OkStatus();
}

namespace {

// Where pieces of both kinds arrive from left to right and are joined as the behaviour says.
class Joiner {
 public:
  Joiner(SplitBehavior behavior, std::vector<Span>* pieces)
      : behavior_(behavior), pieces_(pieces) {}

  void Add(Span piece, bool is_match) {
    if (piece.begin == piece.end) {
      // An empty match is still a border between its neighbours.
      if (is_match) after_match_ = had_piece_ = false;
      return;
    }
    if (is_match && behavior_ == SplitBehavior::kRemoved) {
      had_piece_ = false;
      return;
    }
    if (had_piece_ && Joins(is_match)) {
      pieces_->back().end = piece.end;
    } else {
      pieces_->push_back(piece);
    }
    had_piece_ = true;
    after_match_ = is_match;
  }

 private:
  bool Joins(bool is_match) const {
    switch (behavior_) {
      case SplitBehavior::kMergedWithPrevious:
        return is_match && !after_match_;
      case SplitBehavior::kMergedWithNext:
        return !is_match && after_match_;
      case SplitBehavior::kContiguous:
        return is_match == after_match_;
      default:
        return false;
    }
  }

  const SplitBehavior behavior_;
  std::vector<Span>* const pieces_;
  bool had_piece_ = false;  // the piece before is there to be joined to
  bool after_match_ = false;
};

}  // namespace

void SplitAt(const std::vector<Span>& matches, size_t length, SplitBehavior behavior, bool invert,
             std::vector<Span>* pieces) {
  Joiner joiner(behavior, pieces);
  size_t at = 0;
  for (const Span& match : matches) {
    if (match.begin > at) joiner.Add({at, match.begin}, invert);
    joiner.Add(match, !invert);
    at = match.end;
  }
  if (at < length) joiner.Add({at, length}, invert);
}

}  // namespace gatefold
