#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/compare/compare_report.h"
#include "cli/compare/comparison.h"
#include "cli/error_report.h"
#include "cli/eval/input_flags.h"
#include "cli/local_flags.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

class CompareVerb final : public Verb {
 public:
  absl::string_view name() const override { return "compare"; }
  absl::string_view arguments() const override { return "[TEXT_FILE|FOLDER]..."; }
  absl::string_view summary() const override {
    return "Puts models side by side: sizes, speed, memory, quality.";
  }
  absl::string_view details() const override {
    return "Each model is served by a process of its own on this machine; they are measured by\n"
           "turns, so that what slows the machine down slows all of them. With texts or\n"
           "--equations their quality is measured as by `gatefold eval`. At the end the first\n"
           "model's decode speed is set against the others', beside what the bytes that a token\n"
           "reads would allow.\n";
  }

  void AddFlags(FlagSet* flags) override {
    flags->Add("models", "DIR,DIR", "folders of models; or give --models several times", &models_);
    flags->Add("sequences", "N,N", "how many at a time decode is measured with (default 1,8)",
               &sequences_);
    flags->Add("prompt-tokens", "N",
               "of a prompt, shared by the sequences (default 512, or what fits)",
               &options_.prompt_tokens);
    flags->Add("output-tokens", "N", "generated for each, at least 2 (default 64, or what fits)",
               &options_.output_tokens);
    flags->Add("rounds", "N", "medians are taken over so many (default 3)", &options_.rounds);
    flags->Section("Quality:");
    input_.AddTo(flags);
    flags->Add("window", "N",
               "tokens a model sees at once (default: what all of them can, at most 1024)",
               &options_.window);
    flags->Section("Serving:");
    flags->Add("threads", "N", "of each model (default: the cores there are)", &threads_);
    flags->Add("n-slices", "N", "parts of a dense layer's MLP (default 8)", &options_.n_slices);
    flags->Add("weights", "KIND",
               "how experts are kept, those of all models: checkpoint (default), int8 or int4",
               &weights_);
    flags->Add(
        "backend", "NAME",
        "where all of them are computed: cpu (default), or cuda, which serves some models only",
        &backend_);
    flags->Add("isa", "NAME", "kernels: auto, scalar, avx2, avx512 (default auto)", &isa_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(Check());
    GF_ASSIGN_OR_RETURN(options_.texts, input_.Read(arguments));
    GF_ASSIGN_OR_RETURN(const std::vector<ModelMeasurement> models,
                        Compare(options_, console->interrupts));
    if (output_.json()) {
      PrintJson(ComparisonJson(models), console->out);
    } else {
      PrintComparison(models, console->out);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Check() {
    for (const std::string& list : models_) {
      for (absl::string_view dir : absl::StrSplit(list, ',', absl::SkipEmpty())) {
        options_.model_dirs.emplace_back(dir);
      }
    }
    if (options_.model_dirs.empty()) return UsageError("say which models: --models DIR,DIR");
    if (!sequences_.empty()) options_.sequences = sequences_;
    const struct {
      const char* flag;
      int value, least, most;
    } bounds[] = {{"--rounds", options_.rounds, 1, 1000}, {"--threads", threads_, 0, 1024}};
    for (const auto& [flag, value, least, most] : bounds) {
      if (value < least || value > most) {
        return UsageError(absl::StrCat(flag, " is ", value, ", must be ", least, " to ", most));
      }
    }
    if (options_.output_tokens == 1) return UsageError("--output-tokens is 1, must be at least 2");
    std::set<int> different;
    for (const int n : options_.sequences) {
      if (n < 1 || n > 256)
        return UsageError(absl::StrCat("--sequences has ", n, ", must be 1 to 256"));
      if (!different.insert(n).second)
        return UsageError(absl::StrCat("--sequences has ", n, " twice"));
    }
    const absl::StatusOr<WeightKind> kind = ParseWeightKind(weights_);
    if (!kind.ok()) return UsageError(kind.status().message());
    options_.weights = *kind;
    // Not auto: models that were computed in different places would not compare.
    if (backend_ != "cpu" && backend_ != "cuda") {
      return UsageError(absl::StrCat("--backend is \"", backend_, "\", must be cpu or cuda"));
    }
    // Or the servers would refuse them, which would look like a failure.
    LocalFlags served;
    served.isa = isa_;
    served.n_slices = options_.n_slices;
    GF_RETURN_IF_ERROR(served.ToOptions(/*model_dir=*/"").status());
    options_.serve_flags = {absl::StrCat("--threads=", threads_), absl::StrCat("--isa=", isa_),
                            absl::StrCat("--weights=", weights_),
                            absl::StrCat("--backend=", backend_),
                            absl::StrCat("--n-slices=", options_.n_slices)};
    return absl::OkStatus();
  }

  ComparisonOptions options_;
  std::vector<std::string> models_;
  EvaluationInputFlags input_;
  OutputFlag output_;
  std::vector<int32_t> sequences_;
  std::string weights_ = "checkpoint";
  std::string isa_ = "auto";
  std::string backend_ = "cpu";
  int threads_ = 0;
};

}  // namespace

std::unique_ptr<Verb> MakeCompareVerb() { return std::make_unique<CompareVerb>(); }

}  // namespace gatefold::cli
