#include "tools/random_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/checkpoint/safetensors_writer.h"
#include "gatefold/model/model_config.h"
#include "gatefold/tensor/tensor_view.h"
#include "nlohmann/json.hpp"
#include "tools/byte_tokenizer.h"
#include "tools/random_numbers.h"

namespace gatefold {
namespace {

using nlohmann::ordered_json;

// What to draw a tensor from: uniform around `mean` with standard deviation `deviation`.
struct Draw {
  std::string name;
  std::vector<int64_t> shape;
  float mean = 0;
  float deviation = 0;
};

bool Sparse(const RandomModelOptions& o) { return o.family == "mixtral"; }

ordered_json ConfigJson(const RandomModelOptions& o) {
  std::string architecture = absl::StrCat(o.family, "ForCausalLM");
  architecture[0] = static_cast<char>(architecture[0] - 'a' + 'A');
  ordered_json config = {{"architectures", {architecture}},
                         {"model_type", o.family},
                         {"vocab_size", o.vocab},
                         {"hidden_size", o.d_model},
                         {"num_hidden_layers", o.layers},
                         {"num_attention_heads", o.heads},
                         {"num_key_value_heads", o.kv_heads},
                         {"head_dim", o.head_dim},
                         {"intermediate_size", o.intermediate},
                         {"hidden_act", "silu"},
                         {"max_position_embeddings", o.max_positions},
                         {"rms_norm_eps", o.norm_eps},
                         {"rope_theta", o.rope_theta},
                         {"rope_scaling", nullptr},
                         {"tie_word_embeddings", o.tie_word_embeddings},
                         {"bos_token_id", kByteTokenizerBos},
                         {"eos_token_id", kByteTokenizerEos}};
  if (Sparse(o)) {
    config["num_local_experts"] = o.experts;
    config["num_experts_per_tok"] = o.top_k;
  }
  config["sliding_window"] = nullptr;  // not the same as left out
  if (o.sliding_window > 0) config["sliding_window"] = o.sliding_window;
  if (o.attention_bias) config["attention_bias"] = true;
  if (o.mlp_bias) config["mlp_bias"] = true;
  const absl::string_view dtype = DTypeName(o.dtype);
  config["torch_dtype"] = std::string(dtype.data(), dtype.size());
  return config;
}

class TensorList {
 public:
  explicit TensorList(const RandomModelOptions& options) : o_(options) {
    // Embeddings of scale 1 make the residual stream as large as what the layers add to it.
    draws_.push_back({"model.embed_tokens.weight", {o_.vocab, o_.d_model}, 0, 1});
    for (int layer = 0; layer < o_.layers; ++layer) AddLayer(layer);
    AddNorm("model.norm");
    if (!o_.tie_word_embeddings) AddLinear("lm_head", o_.vocab, o_.d_model, /*bias=*/false);
  }

  const std::vector<Draw>& draws() const { return draws_; }

 private:
  void AddLayer(int layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const std::string attention = absl::StrCat(prefix, "self_attn.");
    const int q_width = o_.heads * o_.head_dim;
    const int kv_width = o_.kv_heads * o_.head_dim;
    AddNorm(absl::StrCat(prefix, "input_layernorm"));
    AddLinear(absl::StrCat(attention, "q_proj"), q_width, o_.d_model, o_.attention_bias);
    AddLinear(absl::StrCat(attention, "k_proj"), kv_width, o_.d_model, o_.attention_bias);
    AddLinear(absl::StrCat(attention, "v_proj"), kv_width, o_.d_model, o_.attention_bias);
    AddLinear(absl::StrCat(attention, "o_proj"), o_.d_model, q_width, o_.attention_bias);
    AddNorm(absl::StrCat(prefix, "post_attention_layernorm"));
    if (!Sparse(o_)) {
      AddMlp(absl::StrCat(prefix, "mlp."), "gate_proj", "up_proj", "down_proj");
      return;
    }
    const std::string moe = absl::StrCat(prefix, "block_sparse_moe.");
    AddLinear(absl::StrCat(moe, "gate"), o_.experts, o_.d_model, /*bias=*/false);
    for (int expert = 0; expert < o_.experts; ++expert) {
      AddMlp(absl::StrCat(moe, "experts.", expert, "."), "w1", "w3", "w2");
    }
  }

  void AddMlp(const std::string& prefix, const char* gate, const char* up, const char* down) {
    AddLinear(absl::StrCat(prefix, gate), o_.intermediate, o_.d_model, o_.mlp_bias);
    AddLinear(absl::StrCat(prefix, up), o_.intermediate, o_.d_model, o_.mlp_bias);
    AddLinear(absl::StrCat(prefix, down), o_.d_model, o_.intermediate, o_.mlp_bias);
  }

  void AddLinear(const std::string& name, int64_t out, int64_t in, bool bias) {
    const float deviation = 1 / std::sqrt(static_cast<float>(in));
    draws_.push_back({absl::StrCat(name, ".weight"), {out, in}, 0, deviation});
    if (bias) draws_.push_back({absl::StrCat(name, ".bias"), {out}, 0, 0.1f});
  }

  // Not all ones, so that a norm whose weight is forgotten shows.
  void AddNorm(const std::string& name) {
    draws_.push_back({absl::StrCat(name, ".weight"), {o_.d_model}, 1, 0.1f});
  }

  const RandomModelOptions& o_;
  std::vector<Draw> draws_;
};

absl::Status WriteWeights(const RandomModelOptions& options, const std::string& path) {
  const TensorList list(options);
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const Draw& draw : list.draws()) {
    tensors.push_back({draw.name, options.dtype, draw.shape});
  }
  GF_ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::Create(path, tensors));
  constexpr int64_t kGrain = 1 << 18, kChunk = 64 * kGrain;  // elements of a thread, and in memory
  const size_t element = DTypeBytes(options.dtype);
  ThreadPool threads(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())),
                     absl::ZeroDuration());
  std::vector<char> bytes(kChunk * element);
  for (const Draw& draw : list.draws()) {
    const RandomNumbers random(options.seed, draw.name, draw.mean, draw.deviation);
    const int64_t n = TensorView{options.dtype, draw.shape, nullptr}.n_elements();
    for (int64_t begin = 0; begin < n; begin += kChunk) {
      const int64_t count = std::min(kChunk, n - begin);
      threads.ParallelFor(count, kGrain, [&](int64_t first, int64_t last) {
        random.Fill(options.dtype, begin + first, last - first, bytes.data() + first * element);
      });
      GF_RETURN_IF_ERROR(writer->Append(bytes.data(), count * element));
    }
  }
  return writer->Finish();
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text << "\n";
  out.close();
  if (out.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

}  // namespace

absl::Status ApplyPreset(absl::string_view preset, RandomModelOptions* options) {
  RandomModelOptions o;
  if (preset == "tiny") {
    *options = o;
    return absl::OkStatus();
  }
  if (preset == "mixtral-8x7b") {
    o.d_model = 4096;
    o.layers = 32;
    o.heads = 32;
    o.kv_heads = 8;
    o.intermediate = 14336;
    o.vocab = 32000;
    o.max_positions = 32768;
    *options = o;
    return absl::OkStatus();
  }
  o.d_model = 1024;
  o.layers = 16;
  o.heads = 16;
  o.kv_heads = 4;
  o.head_dim = 64;
  o.vocab = 32000;
  o.max_positions = 8192;
  if (preset == "peers") {
    o.intermediate = 2816;
  } else if (preset == "peers-dense-active") {
    o.family = "llama";
    o.intermediate = 2 * 2816;
  } else if (preset == "peers-dense-total") {
    o.family = "llama";
    o.intermediate = 8 * 2816;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "no preset \"", preset,
        "\"; there are tiny, peers, peers-dense-active, peers-dense-total and mixtral-8x7b"));
  }
  *options = o;
  return absl::OkStatus();
}

absl::Status WriteRandomModel(const RandomModelOptions& given, const std::string& out) {
  RandomModelOptions options = given;
  if (options.head_dim == 0 && options.heads > 0)
    options.head_dim = options.d_model / options.heads;
  if (options.family.empty() || out.empty()) {
    return absl::InvalidArgumentError("the family and the folder to write must be named");
  }
  const std::string config = ConfigJson(options).dump(1);
  // The services' own parser decides what a model may be. Dense models load with any slice count.
  GF_RETURN_IF_ERROR(ParseModelConfig(config, "", {.n_slices = 1}).status());
  GF_ASSIGN_OR_RETURN(const std::string tokenizer, ByteTokenizerJson(options.vocab));

  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("cannot create ", out, ": ", error.message()));
  }
  const ordered_json generation = {{"bos_token_id", kByteTokenizerBos},
                                   {"eos_token_id", kByteTokenizerEos}};
  GF_RETURN_IF_ERROR(WriteText(absl::StrCat(out, "/config.json"), config));
  GF_RETURN_IF_ERROR(WriteText(absl::StrCat(out, "/generation_config.json"), generation.dump(1)));
  GF_RETURN_IF_ERROR(WriteText(absl::StrCat(out, "/tokenizer.json"), tokenizer));
  GF_RETURN_IF_ERROR(WriteText(absl::StrCat(out, "/tokenizer_config.json"),
                               ByteTokenizerConfigJson(options.max_positions)));
  return WriteWeights(options, absl::StrCat(out, "/model.safetensors"));
}

}  // namespace gatefold
