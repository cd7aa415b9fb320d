#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/eval/eval_report.h"
#include "cli/eval/evaluation.h"
#include "cli/eval/heat_map.h"
#include "cli/eval/input_flags.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

absl::Status WriteFile(const std::string& name, const std::string& content) {
  std::ofstream file(name, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("--heat-map: cannot write ", name));
}

// Before the work begins, and without touching what is there.
absl::Status CheckWritable(const std::string& name) {
  std::filesystem::path folder = std::filesystem::path(name).parent_path();
  if (folder.empty()) folder = ".";
  std::error_code error;
  const bool exists = std::filesystem::exists(name, error);
  if (!std::filesystem::is_directory(name, error) &&
      access(exists ? name.c_str() : folder.c_str(), W_OK) == 0) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("--heat-map: cannot write ", name));
}

class EvalVerb final : public Verb {
 public:
  absl::string_view name() const override { return "eval"; }
  absl::string_view arguments() const override { return "[TEXT_FILE|FOLDER]..."; }
  absl::string_view summary() const override {
    return "Measures how good a model is on texts and questions.";
  }
  absl::string_view details() const override {
    return "Texts: perplexity per token, bits per byte and tokens per character, by tag. A file's\n"
           "name is its tag (a language, a source); of a folder all *.txt are taken. Each document\n"
           "is read from its start, in windows that overlap by half. The mean over tags weighs\n"
           "each tag alike.\n"
           "Questions, one JSON object per line: {\"tag\", \"question\", \"choices\", \"answer\"};\n"
           "answer is the right choice or its index. The model's choice is the likeliest, and by\n"
           "length: the likeliest per byte. Without choices its greedy answer, up to the end of\n"
           "the line, must be `answer` word for word.\n"
           "--routing adds the share of tokens that each expert was chosen for, by layer and tag.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    flags->Section("What is measured:");
    input_.AddTo(flags);
    flags->Add("window", "N", "tokens the model sees at once (default: all it can, at most 1024)",
               &window_);
    flags->Add("concurrency", "N", "requests at the same time (default 4)", &concurrency_);
    flags->Section("What is shown:");
    flags->AddSwitch("routing", "which experts the texts' tokens went to, by tag", &routing_);
    flags->Add("heat-map", "FILE", "the same as a picture (SVG); implies --routing", &heat_map_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    GF_RETURN_IF_ERROR(Check(arguments));
    // What is wrong with a file is said before a model is loaded.
    GF_ASSIGN_OR_RETURN(const EvaluationInput input, input_.Read(arguments));
    if (!heat_map_.empty()) GF_RETURN_IF_ERROR(CheckWritable(heat_map_));
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    const Scorer::Options options{window_, routing_ || !heat_map_.empty()};
    GF_ASSIGN_OR_RETURN(const Evaluation evaluation,
                        Evaluate(connection.get(), input, options, concurrency_));
    if (options.routing && evaluation.Routed() == nullptr) {
      console->err << "no routing: "
                   << (evaluation.model.n_experts() == 0 ? "this model has no gates\n"
                                                         : "no token of these texts was scored\n");
    }
    if (output_.json()) {
      PrintJson(EvalJson(evaluation), console->out);
    } else {
      PrintEvaluation(evaluation, console->out);
    }
    if (heat_map_.empty() || evaluation.Routed() == nullptr) return absl::OkStatus();
    return WriteFile(heat_map_, ExpertHeatMap(evaluation));
  }

 private:
  absl::Status Check(const std::vector<std::string>& arguments) const {
    if (arguments.empty() && input_.tasks.empty() && input_.equations.empty()) {
      return UsageError("give text files or folders, --tasks or --equations");
    }
    if (arguments.empty() && (routing_ || !heat_map_.empty())) {
      return UsageError("--routing and --heat-map want texts");
    }
    if (concurrency_ < 1 || concurrency_ > 256) {
      return UsageError(absl::StrCat("--concurrency is ", concurrency_, ", must be 1 to 256"));
    }
    return absl::OkStatus();
  }

  ConnectionFlags connection_;
  OutputFlag output_;
  EvaluationInputFlags input_;
  std::string heat_map_;
  uint32_t window_ = 0;
  int concurrency_ = 4;
  bool routing_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeEvalVerb() { return std::make_unique<EvalVerb>(); }

}  // namespace gatefold::cli
