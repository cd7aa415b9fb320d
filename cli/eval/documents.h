#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gatefold::cli {

// Texts of one kind: a language, a source.
struct TaggedTexts {
  std::string tag;
  std::vector<std::string> documents;

  size_t n_bytes() const;
};

// Reads text files, and all *.txt of folders; a file's name without its ending is its tag. A line
// that holds nothing but `separator` ends a document (empty: a file is one). Tags are in
// alphabetical order; empty documents are left out.
// Errors: a path that cannot be read, text that is not UTF-8 (with the line), two files of one tag,
// a tag without text.
absl::StatusOr<std::vector<TaggedTexts>> ReadTaggedTexts(const std::vector<std::string>& paths,
                                                         const std::string& separator);

}  // namespace gatefold::cli
