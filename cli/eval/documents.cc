#include "cli/eval/documents.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "cli/prompt_flags.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"

namespace gatefold::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxDocumentBytes = size_t{1} << 20;  // what a router takes as one prompt

absl::StatusOr<std::vector<fs::path>> FindFiles(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    const size_t before = files.size();
    for (auto it = fs::directory_iterator(path, error); !error && it != fs::end(it);
         it.increment(error)) {
      if (it->path().extension() == ".txt") files.push_back(it->path());
    }
    if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
    if (files.size() == before) {
      return absl::NotFoundError(absl::StrCat(path, ": no *.txt files in this folder"));
    }
  }
  return files;
}

absl::StatusOr<std::string> ReadUtf8(const fs::path& path) {
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!file || fs::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": cannot be read"));
  }
  GF_ASSIGN_OR_RETURN(std::string text, ReadAll(file, path.string()));
  const size_t bad = FindInvalidUtf8(text);
  if (bad == kValidUtf8) return text;
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(), ": line ",
                   1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(bad), '\n'),
                   " is not UTF-8 (byte ", bad, " of the file)"));
}

std::vector<std::string> Split(const std::string& text, const std::string& separator) {
  if (separator.empty()) return {text};
  std::vector<std::string> documents(1);
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StripSuffix(line, "\r") == separator) {
      documents.emplace_back();
    } else {
      absl::StrAppend(&documents.back(), line, "\n");
    }
  }
  // The newline after the last line is the splitting's unless the file has it.
  if (!documents.back().empty()) documents.back().pop_back();
  return documents;
}

}  // namespace

size_t TaggedTexts::n_bytes() const {
  size_t n = 0;
  for (const std::string& document : documents) n += document.size();
  return n;
}

absl::StatusOr<std::vector<TaggedTexts>> ReadTaggedTexts(const std::vector<std::string>& paths,
                                                         const std::string& separator) {
  GF_ASSIGN_OR_RETURN(const std::vector<fs::path> files, FindFiles(paths));
  std::map<std::string, TaggedTexts> by_tag;
  for (const fs::path& file : files) {
    GF_ASSIGN_OR_RETURN(const std::string text, ReadUtf8(file));
    TaggedTexts texts{file.stem().string(), {}};
    for (std::string& document : Split(text, separator)) {
      if (document.size() > kMaxDocumentBytes) {
        return absl::InvalidArgumentError(absl::StrCat(
            file.string(), ": a document has ", document.size(), " bytes, at most ",
            kMaxDocumentBytes,
            separator.empty() ? "" : absl::StrCat("; split it with lines \"", separator, "\"")));
      }
      if (document.find_first_not_of(" \t\r\n") != std::string::npos) {
        texts.documents.push_back(std::move(document));
      }
    }
    if (texts.documents.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.string(), ": tag \"", texts.tag, "\" has no text"));
    }
    const std::string tag = texts.tag;
    if (!by_tag.emplace(tag, std::move(texts)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.string(), ": there is another file of the tag \"", tag, "\""));
    }
  }
  std::vector<TaggedTexts> all;
  for (auto& [tag, texts] : by_tag) all.push_back(std::move(texts));
  return all;
}

}  // namespace gatefold::cli
