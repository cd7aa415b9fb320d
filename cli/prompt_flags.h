#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flag_set.h"
#include "cli/verb.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold::cli {

// Token ids that may be too many for a command line.
struct TokenFlags {
  std::vector<int32_t> tokens;
  std::string tokens_file;  // a JSON list; "-": standard input

  void AddTo(FlagSet* flags);
  bool given(const FlagSet& flags) const;
  // Usage errors for both flags at once and for what is no list of ids.
  absl::StatusOr<std::vector<int32_t>> Read(Console* console) const;
};

// What a request starts from: token ids, or text from an argument or standard input.
struct PromptFlags {
  TokenFlags tokens;
  bool bos = true;

  void AddTo(FlagSet* flags);
  // Text is taken to the last byte, a newline at its end too. No argument, or `-`, is standard
  // input. Refuses text that is not UTF-8.
  absl::StatusOr<inference::v1::Prompt> Read(const FlagSet& flags,
                                             const std::vector<std::string>& arguments,
                                             Console* console) const;
};

// The text of a verb that takes text alone; see PromptFlags::Read.
absl::StatusOr<std::string> ReadText(const std::vector<std::string>& arguments, Console* console);

// More than the tokenizer would take is refused.
inline constexpr size_t kMaxInputBytes = size_t{256} << 20;
absl::StatusOr<std::string> ReadAll(std::istream& in, const std::string& name);

}  // namespace gatefold::cli
