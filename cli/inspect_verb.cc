#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/model/model_manifest.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/tensor/dtype.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "gatefold/worker/worker.h"

namespace gatefold::cli {
namespace {

const char* RopeName(RopeKind kind) {
  switch (kind) {
    case RopeKind::kDefault:
      return "default";
    case RopeKind::kLinear:
      return "linear";
    case RopeKind::kLlama3:
      return "llama3";
    case RopeKind::kYarn:
      return "yarn";
  }
  return "unknown";
}

Json ConfigJson(const ModelConfig& config) {
  return {{"n_layers", config.n_layers},
          {"d_model", config.d_model},
          {"n_heads", config.n_heads},
          {"n_kv_heads", config.n_kv_heads},
          {"head_dim", config.head_dim},
          {"d_ff", config.d_ff},
          {"n_experts", config.n_experts},
          {"top_k", config.top_k},
          {"n_slices", config.n_slices},
          {"vocab_size", config.vocab_size},
          {"max_positions", config.max_positions},
          {"sliding_window", config.sliding_window},
          {"norm_eps", config.norm_eps},
          {"rope", {{"kind", RopeName(config.rope.kind)}, {"theta", config.rope.theta}}},
          {"tie_word_embeddings", config.tie_word_embeddings},
          {"eos_token_ids", config.eos_token_ids},
          {"bos_token_id", config.bos_token_id ? Json(*config.bos_token_id) : Json()}};
}

// A folder without a tokenizer serves token ids alone, so this is no error.
Json TokenizerJson(const std::string& dir) {
  const auto tokenizer = Tokenizer::Load(dir);
  if (!tokenizer.ok()) return {{"error", std::string(tokenizer.status().message())}};
  const auto bos = (*tokenizer)->bos_id();
  return {{"vocab_size", (*tokenizer)->vocab_size()},
          {"bos_id", bos ? Json(*bos) : Json()},
          {"eos_ids", (*tokenizer)->eos_ids()}};
}

Json ModelFolderJson(const std::string& dir, const ModelWeights& weights) {
  const RoleBytes& bytes = weights.role_bytes();
  return {{"family", weights.config().family},
          {"parameters", weights.n_parameters()},
          {"active_parameters", weights.n_active_parameters()},
          {"expert_dtype", std::string(DTypeName(weights.expert_dtype()))},
          {"bytes",
           {{"attention", bytes.attention},
            {"router", bytes.router},
            {"experts", bytes.experts},
            {"per_expert", weights.ExpertBytes(0, 0)}}},
          {"config", ConfigJson(weights.config())},
          {"tokenizer", TokenizerJson(dir)}};
}

void PrintFolder(const std::string& dir, const ModelWeights& weights, std::ostream& out) {
  const ModelConfig& config = weights.config();
  const RoleBytes& bytes = weights.role_bytes();
  const Json tokenizer = TokenizerJson(dir);
  const std::string experts =
      config.sparse() ? absl::StrCat(config.top_k, " of ", config.n_experts, " per layer")
                      : absl::StrCat("dense, served as ", config.n_slices, " slices");
  Table table({"family", config.family});
  table.AddRow(
      {"parameters", absl::StrFormat("%.1f M, %.1f M read per token", weights.n_parameters() / 1e6,
                                     weights.n_active_parameters() / 1e6)});
  table.AddRow({"layers", absl::StrCat(config.n_layers, " of width ", config.d_model)});
  table.AddRow({"attention", absl::StrCat(config.n_heads, " heads of ", config.head_dim, ", ",
                                          config.n_kv_heads, " for keys and values",
                                          config.sliding_window > 0
                                              ? absl::StrCat(", window ", config.sliding_window)
                                              : "")});
  table.AddRow({"experts", absl::StrCat(experts, ", width ", config.d_ff, ", ",
                                        std::string(DTypeName(weights.expert_dtype())))});
  table.AddRow(
      {"rope", absl::StrFormat("%s, theta %g", RopeName(config.rope.kind), config.rope.theta)});
  table.AddRow({"sequence", absl::StrCat("at most ", config.max_positions, " tokens")});
  table.AddRow({"vocabulary", absl::StrCat(config.vocab_size)});
  table.AddRow({"tokenizer", tokenizer.contains("error")
                                 ? tokenizer["error"].get<std::string>()
                                 : absl::StrCat(tokenizer["vocab_size"].get<int>(), " tokens")});
  table.Print(out);
  out << "\n";
  Table sizes({"loaded by", ">size"});
  sizes.AddRow({"attention-service", FormatBytes(bytes.attention)});
  sizes.AddRow({"router-service", FormatBytes(bytes.router)});
  sizes.AddRow({"expert-services together", FormatBytes(bytes.experts)});
  sizes.AddRow(
      {config.sparse() ? "  one expert" : "  one slice", FormatBytes(weights.ExpertBytes(0, 0))});
  sizes.Print(out);
}

absl::Status PrintManifest(const ModelWeights& weights, std::ostream& out) {
  ThreadPool threads(NumThreads(0), absl::ZeroDuration());
  GF_ASSIGN_OR_RETURN(const ModelManifest manifest, ModelManifest::Make(weights, &threads));
  out << manifest.ToJson(weights.config());
  return absl::OkStatus();
}

class InspectVerb final : public Verb {
 public:
  absl::string_view name() const override { return "inspect"; }
  absl::string_view arguments() const override { return "[DIR]"; }
  absl::string_view summary() const override {
    return "Shows what a model folder holds, without reading its weights.";
  }

  void AddFlags(FlagSet* flags) override {
    flags->Add("model", "DIR", "the folder, if it is not an argument", &model_);
    flags->Add("n-slices", "N", "parts of a dense layer's MLP (default 8)", &n_slices_);
    flags->AddSwitch(
        "manifest",
        "print gatefold-manifest.json instead: what shards check experts by that they load from "
        "other shards (reads all experts)",
        &manifest_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (arguments.size() > 1 || (!arguments.empty() && flags.OnCommandLine("model"))) {
      return UsageError("give one folder");
    }
    const std::string dir = arguments.empty() ? model_ : arguments[0];
    if (dir.empty()) return UsageError("say which folder: inspect DIR");
    const auto weights = ModelWeights::Open(dir, {n_slices_});
    if (!weights.ok()) return ModelFolderError(dir, weights.status());
    if (manifest_) return PrintManifest(**weights, console->out);
    if (output_.json()) {
      PrintJson(ModelFolderJson(dir, **weights), console->out);
    } else {
      PrintFolder(dir, **weights, console->out);
    }
    return absl::OkStatus();
  }

 private:
  std::string model_;
  int n_slices_ = 8;
  bool manifest_ = false;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeInspectVerb() { return std::make_unique<InspectVerb>(); }

}  // namespace gatefold::cli
