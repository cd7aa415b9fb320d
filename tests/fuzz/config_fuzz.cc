// Input: a byte of slice count, then config.json, and after a NUL byte generation_config.json.

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "gatefold/base/check.h"
#include "gatefold/model/model_config.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/model/rope.h"

namespace {

// What the services rely on without looking again.
void CheckConfig(const gatefold::ModelConfig& config) {
  GF_CHECK(config.n_layers > 0 && config.d_model > 0 && config.vocab_size > 0 && config.d_ff > 0);
  GF_CHECK(config.head_dim > 0 && config.head_dim % 2 == 0);
  GF_CHECK(config.n_kv_heads > 0 && config.n_heads % config.n_kv_heads == 0);
  GF_CHECK(config.experts_per_row() > 0);
  GF_CHECK(config.experts_per_row() <= config.experts_per_layer());
  GF_CHECK(config.norm_eps > 0);
  for (int32_t id : config.eos_token_ids) GF_CHECK(id >= 0 && id < config.vocab_size);
  if (!config.sparse()) {
    const auto last = gatefold::DenseSlice(config.d_ff, config.n_slices, config.n_slices - 1);
    GF_CHECK(last.end == config.d_ff && last.begin < last.end);
  }
  GF_CHECK(gatefold::ConfigFingerprint(config).size() == 32);
  const auto frequencies = gatefold::ComputeRopeFrequencies(config.rope, config.head_dim);
  GF_CHECK(frequencies.inv_freq.size() == static_cast<size_t>(config.head_dim / 2));
  for (float frequency : frequencies.inv_freq) {
    GF_CHECK(std::isfinite(frequency) && frequency >= 0 && frequency <= 1);
  }
  std::string room(config.head_dim / 2 * sizeof(float), '\0');
  std::string more = room;
  gatefold::RopeRow(frequencies, config.max_positions - 1, reinterpret_cast<float*>(room.data()),
                    reinterpret_cast<float*>(more.data()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t nul = text.find('\0');
  const absl::string_view generation =
      nul == absl::string_view::npos ? absl::string_view() : text.substr(nul + 1);
  const auto config =
      gatefold::ParseModelConfig(text.substr(0, nul), generation, {.n_slices = data[0]});
  if (config.ok()) {
    CheckConfig(*config);
  } else {
    GF_CHECK(!config.status().message().empty());
  }
  return 0;
}
