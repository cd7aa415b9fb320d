#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/pattern.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// A text and the pieces of it that the model sees one by one. Reused from text to text.
struct PieceList {
  std::string text;
  std::vector<Span> pieces;   // not empty, from left to right
  bool starts_input = false;  // the first piece begins where the user's text begins
};

// Cuts normalised text into pieces that no token crosses.
// Threads: safe, each with a scratch of its own.
class PreTokenizer {
 public:
  // The "pre_tokenizer" of a tokenizer.json; null leaves the text whole. Unimplemented for a type
  // that is not supported.
  static absl::StatusOr<PreTokenizer> FromJson(const nlohmann::json& json);
  // Isolates the matches of `regex`, then goes to bytes.
  static absl::StatusOr<PreTokenizer> ByteLevel(absl::string_view regex);

  // Whether the model's symbols are bytes rather than code points.
  bool byte_level() const { return byte_level_; }

  // Cuts the one piece that `list` holds. ResourceExhausted if a pattern takes too long.
  absl::Status Apply(RegexScratch* scratch, PieceList* list) const;

 private:
  enum class Kind { kSplit, kDigits, kSpaces, kWords, kPunctuation, kMetaspace, kPrefixSpace };
  enum class Prepend { kAlways, kFirst, kNever };
  struct Step {
    Kind kind;
    std::vector<Pattern> pattern = {};  // kSplit: one
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::string replacement = "";  // kMetaspace
    Prepend prepend = Prepend::kNever;
    bool split = false;  // kMetaspace
  };

  absl::Status AddSteps(const nlohmann::json& json, const std::string& path);
  absl::Status AddByteLevel(JsonFields* fields);
  absl::Status AddMetaspace(JsonFields* fields);
  static absl::Status FindMatches(const Step& step, absl::string_view piece, RegexScratch* scratch,
                                  std::vector<Span>* matches);
  static absl::Status Split(const Step& step, RegexScratch* scratch, PieceList* list);
  static void ToMetaspace(const Step& step, PieceList* list);
  static void AddPrefixSpace(PieceList* list);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace gatefold
