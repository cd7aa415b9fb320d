// Input: gatefold-manifest.json, of a small sparse or, after a byte that is odd, a small dense
// model.

#include <cstdint>

#include "absl/strings/string_view.h"
#include "gatefold/base/check.h"
#include "gatefold/model/expert_catalog.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  gatefold::ModelConfig config;
  config.n_layers = 2;
  config.d_model = 8;
  config.d_ff = 12;
  if (data[0] % 2 == 0) {
    config.n_experts = 2;
    config.top_k = 1;
  } else {
    config.n_slices = 2;
    config.mlp_bias = true;
  }
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto manifest = gatefold::ModelManifest::Parse(text, "input", config);
  if (!manifest.ok()) {
    GF_CHECK(!manifest.status().message().empty());
    return 0;
  }
  const gatefold::ExpertCatalog catalog(config, *manifest);
  for (int layer = 0; layer < 2; ++layer) {
    for (int expert = 0; expert < 2; ++expert) {
      GF_CHECK(catalog.ExpertBytes(layer, expert) > 0);
      GF_CHECK(catalog.Digest(layer, expert)->size() == 64);
    }
  }
  GF_CHECK(gatefold::ModelManifest::Parse(manifest->ToJson(config), "output", config).ok());
  return 0;
}
