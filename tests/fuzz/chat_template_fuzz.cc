// Input: a chat template, and after a NUL byte what a user says.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"
#include "gatefold/chat_template/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  const auto chat_template = gatefold::ChatTemplate::Parse(input.substr(0, nul));
  if (!chat_template.ok()) {
    GF_CHECK(!chat_template.status().message().empty());
    return 0;
  }
  gatefold::ChatTemplateInputs inputs;
  const absl::string_view text = nul == absl::string_view::npos ? "" : input.substr(nul + 1);
  inputs.messages = {{"system", "Be brief."}, {"user", std::string(text)}};
  inputs.bos_token = "<s>";
  inputs.variables = {{"tools", {{{"name", "f"}, {"n", 1.5}, {"on", true}, {"none", nullptr}}}}};
  const auto rendered = chat_template->Render(inputs);
  GF_CHECK(rendered.ok() || !rendered.status().message().empty());
  if (rendered.ok()) GF_CHECK(gatefold::FindInvalidUtf8(*rendered) == gatefold::kValidUtf8);
  return 0;
}
