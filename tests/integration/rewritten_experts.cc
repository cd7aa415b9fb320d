#include "tests/integration/rewritten_experts.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

absl::Status CopyWithRewrittenExperts(
    const std::string& model, const std::string& to,
    const std::function<void(const SafetensorsTensor& tensor, std::vector<char>* bytes)>& rewrite) {
  for (const char* name : {"/config.json", "/model.safetensors"}) {
    std::filesystem::copy_file(model + name, to + name);
  }
  GF_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(model + "/model.safetensors"));
  uint64_t data_bytes = 0;
  for (const SafetensorsTensor& tensor : file->tensors())
    data_bytes = std::max(data_bytes, tensor.end);
  const std::string weights = to + "/model.safetensors";
  const uint64_t data_at = std::filesystem::file_size(weights) - data_bytes;
  std::fstream out(weights, std::ios::in | std::ios::out | std::ios::binary);
  int n_experts = 0;
  for (const SafetensorsTensor& tensor : file->tensors()) {
    if (!absl::StrContains(tensor.name, ".experts.")) continue;
    ++n_experts;
    std::vector<char> bytes(tensor.size_bytes());
    std::memcpy(bytes.data(), tensor.data, bytes.size());
    rewrite(tensor, &bytes);
    out.seekp(static_cast<std::streamoff>(data_at + tensor.begin));
    out.write(bytes.data(), static_cast<std::streamsize>(tensor.size_bytes()));
  }
  if (n_experts == 0) return absl::NotFoundError(absl::StrCat(model, " has no experts"));
  return out.flush().good() ? absl::OkStatus() : absl::DataLossError(weights + " was not written");
}

}  // namespace gatefold
