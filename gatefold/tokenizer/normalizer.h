#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/normal_form.h"
#include "gatefold/tokenizer/pattern.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// What is done to text before it is cut into pieces.
// Threads: safe, each with a scratch of its own.
class Normalizer {
 public:
  // The "normalizer" of a tokenizer.json; null does nothing. Unimplemented for a type that is not
  // supported.
  static absl::StatusOr<Normalizer> FromJson(const nlohmann::json& json);
  // As SentencePiece does with its identity rule.
  static Normalizer SentencePiece(bool add_dummy_prefix, bool remove_extra_whitespaces);
  static Normalizer Nfc();

  bool empty() const { return steps_.empty(); }
  // `text` is valid UTF-8 and stays so. ResourceExhausted if it would grow out of proportion.
  absl::Status Apply(RegexScratch* scratch, std::string* text) const;

 private:
  enum class Kind {
    kNormalForm,
    kLowercase,
    kStripAccents,
    kStripLeft,
    kStripRight,
    kCollapseSpaces,
    kTrimMetaspaces,
    kPrepend,
    kReplace,
  };
  struct Step {
    Kind kind;
    std::string content;                 // kPrepend, kReplace
    std::vector<Pattern> pattern;        // kReplace: one
    NormalForm form = NormalForm::kNfc;  // kNormalForm
  };

  absl::Status AddSteps(const nlohmann::json& json, const std::string& path);
  static absl::Status ApplyStep(const Step& step, size_t max_bytes, RegexScratch* scratch,
                                std::string* text);

  std::vector<Step> steps_;
};

}  // namespace gatefold
