#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/worker/worker.h"

namespace gatefold::cli {
namespace {

class VersionVerb final : public Verb {
 public:
  absl::string_view name() const override { return "version"; }
  absl::string_view summary() const override { return "Tells the version."; }
  void AddFlags(FlagSet* flags) override { output_.AddTo(flags); }

  absl::Status Run(const FlagSet&, const std::vector<std::string>&, Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (output_.json()) {
      PrintJson(Json{{"version", kVersion}, {"wire_version", kWireVersion}}, console->out);
    } else {
      console->out << "gatefold " << kVersion << "\n";
    }
    return absl::OkStatus();
  }

 private:
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeVersionVerb() { return std::make_unique<VersionVerb>(); }

}  // namespace gatefold::cli
