#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/chat_template/jinja_ast.h"

namespace gatefold::jinja {

// InvalidArgument for what is no Jinja, Unimplemented for statements that are not supported; both
// with the line.
absl::StatusOr<Template> ParseTemplate(absl::string_view source);

}  // namespace gatefold::jinja
