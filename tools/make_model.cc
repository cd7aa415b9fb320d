// make_model --preset tiny --out DIR: writes a model of random weights. --help lists the rest.

#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/types/optional.h"
#include "gatefold/model/model_weights.h"
#include "tools/random_model.h"

ABSL_FLAG(std::string, out, "", "Folder to write.");
ABSL_FLAG(std::string, preset, "tiny",
          "Where the other flags start from: tiny, peers, peers-dense-active, peers-dense-total, "
          "mixtral-8x7b (93 GB).");
ABSL_FLAG(absl::optional<std::string>, family, absl::nullopt, "mixtral, llama or mistral.");
ABSL_FLAG(absl::optional<int>, d_model, absl::nullopt, "Width of a row.");
ABSL_FLAG(absl::optional<int>, layers, absl::nullopt, "Number of layers.");
ABSL_FLAG(absl::optional<int>, heads, absl::nullopt, "Query heads.");
ABSL_FLAG(absl::optional<int>, kv_heads, absl::nullopt, "Key and value heads.");
ABSL_FLAG(absl::optional<int>, head_dim, absl::nullopt, "Width of a head; 0: d_model / heads.");
ABSL_FLAG(absl::optional<int>, experts, absl::nullopt, "Experts per layer, of mixtral.");
ABSL_FLAG(absl::optional<int>, top_k, absl::nullopt, "Experts per row, of mixtral.");
ABSL_FLAG(absl::optional<int>, intermediate, absl::nullopt, "Width inside an expert or MLP.");
ABSL_FLAG(absl::optional<int>, vocab, absl::nullopt, "Vocabulary, at least 259.");
ABSL_FLAG(absl::optional<int>, max_positions, absl::nullopt, "Longest sequence.");
ABSL_FLAG(absl::optional<int>, sliding_window, absl::nullopt, "Keys a query sees; 0: all.");
ABSL_FLAG(absl::optional<double>, rope_theta, absl::nullopt, "Base of the rotary frequencies.");
ABSL_FLAG(absl::optional<double>, norm_eps, absl::nullopt, "Epsilon of the norms.");
ABSL_FLAG(absl::optional<bool>, tie_word_embeddings, absl::nullopt, "No LM head of its own.");
ABSL_FLAG(absl::optional<bool>, attention_bias, absl::nullopt, "Biases in attention, of llama.");
ABSL_FLAG(absl::optional<bool>, mlp_bias, absl::nullopt, "Biases in the MLP, of llama.");
ABSL_FLAG(std::string, dtype, "bf16", "f32, bf16 or f16.");
ABSL_FLAG(uint64_t, seed, 1, "Same seed, same weights.");

namespace {

// Flags are spelled with dashes in documents; the library knows underscores only.
void SpellWithUnderscores(char* argument) {
  if (argument[0] != '-' || argument[1] != '-') return;
  for (char* c = argument + 2; *c != '\0' && *c != '='; ++c) {
    if (*c == '-') *c = '_';
  }
}

template <typename T>
void Override(const absl::Flag<absl::optional<T>>& flag, T* value) {
  const absl::optional<T> given = absl::GetFlag(flag);
  if (given.has_value()) *value = *given;
}

absl::Status ParseDType(const std::string& name, gatefold::DType* dtype) {
  if (name == "f32") {
    *dtype = gatefold::DType::kF32;
  } else if (name == "bf16") {
    *dtype = gatefold::DType::kBF16;
  } else if (name == "f16") {
    *dtype = gatefold::DType::kF16;
  } else {
    return absl::InvalidArgumentError("--dtype is " + name + "; it may be f32, bf16 or f16");
  }
  return absl::OkStatus();
}

absl::Status Run() {
  gatefold::RandomModelOptions options;
  absl::Status status = gatefold::ApplyPreset(absl::GetFlag(FLAGS_preset), &options);
  if (!status.ok()) return status;
  Override(FLAGS_family, &options.family);
  Override(FLAGS_d_model, &options.d_model);
  Override(FLAGS_layers, &options.layers);
  Override(FLAGS_heads, &options.heads);
  Override(FLAGS_kv_heads, &options.kv_heads);
  Override(FLAGS_head_dim, &options.head_dim);
  Override(FLAGS_experts, &options.experts);
  Override(FLAGS_top_k, &options.top_k);
  Override(FLAGS_intermediate, &options.intermediate);
  Override(FLAGS_vocab, &options.vocab);
  Override(FLAGS_max_positions, &options.max_positions);
  Override(FLAGS_sliding_window, &options.sliding_window);
  Override(FLAGS_rope_theta, &options.rope_theta);
  Override(FLAGS_norm_eps, &options.norm_eps);
  Override(FLAGS_tie_word_embeddings, &options.tie_word_embeddings);
  Override(FLAGS_attention_bias, &options.attention_bias);
  Override(FLAGS_mlp_bias, &options.mlp_bias);
  options.seed = absl::GetFlag(FLAGS_seed);
  status = ParseDType(absl::GetFlag(FLAGS_dtype), &options.dtype);
  if (!status.ok()) return status;

  const std::string out = absl::GetFlag(FLAGS_out);
  status = gatefold::WriteRandomModel(options, out);
  if (!status.ok()) return status;
  // Read it back as a service would.
  const auto weights = gatefold::ModelWeights::Open(out, {.n_slices = 1});
  if (!weights.ok()) return weights.status();
  const gatefold::RoleBytes& bytes = (*weights)->role_bytes();
  std::printf(
      "%s: %.1f M parameters, %.1f M read per token, %.1f MB (attention %.1f, router %.1f, "
      "experts %.1f)\n",
      out.c_str(), (*weights)->n_parameters() / 1e6, (*weights)->n_active_parameters() / 1e6,
      (bytes.attention + bytes.router + bytes.experts) / 1e6, bytes.attention / 1e6,
      bytes.router / 1e6, bytes.experts / 1e6);
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Writes a model of random weights: make_model --out DIR [flags]");
  for (int i = 1; i < argc; ++i) SpellWithUnderscores(argv[i]);
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "make_model: %s\n", status.ToString().c_str());
  return 1;
}
