#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold::jinja {

struct Token {
  enum class Kind {
    kText,         // outside of tags
    kOutputBegin,  // {{
    kOutputEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,   // text: without quotes and escapes
    kInteger,  // text: digits
    kFloat,
    kOperator,
    kEnd,  // of the template
  };
  Kind kind;
  std::string text;
  int line;
};

// Cuts a template into tokens, with the white space control that chat templates are written for:
// a block tag takes the spaces before it on its line and the line end after it.
// Errors: InvalidArgument with the line.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace gatefold::jinja
