#include <optional>

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/api_keys.h"

namespace gatefold::cli {
namespace {

class KeysVerb final : public Verb {
 public:
  absl::string_view name() const override { return "keys"; }
  absl::string_view arguments() const override { return "NAME"; }
  absl::string_view summary() const override { return "Makes an API key for a router."; }
  absl::string_view details() const override {
    return "The line for the router's --api-keys-file goes to standard output, the key itself to\n"
           "standard error: it is nowhere else, for the line holds its hash alone.\n"
           "  gatefold keys alice --tokens-per-minute 100000 >> api-keys\n"
           "With -o json one object: name, key, line.\n";
  }

  void AddFlags(FlagSet* flags) override {
    flags->AddSwitch("admin", "may also call AdminService", &admin_);
    flags->Add("requests-per-minute", "N", "at most so many calls, per router (default: no limit)",
               &requests_per_minute_);
    flags->Add("tokens-per-minute", "N",
               "at most so many prompt and output tokens, per router (default: no limit)",
               &tokens_per_minute_);
    flags->Add("max-priority", "N",
               "the highest priority of its requests, 0 to 100 (default: no limit)",
               &max_priority_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (arguments.size() != 1) return UsageError("takes one argument, a name for the key");
    if (const absl::Status name = CheckApiKeyName(arguments[0]); !name.ok()) {
      return UsageError(name.message());
    }
    ApiKey key;
    key.name = arguments[0];
    key.admin = admin_;
    GF_RETURN_IF_ERROR(CheckLimit("--requests-per-minute", requests_per_minute_, 1, kMaxPerMinute));
    GF_RETURN_IF_ERROR(CheckLimit("--tokens-per-minute", tokens_per_minute_, 1, kMaxPerMinute));
    GF_RETURN_IF_ERROR(CheckLimit("--max-priority", max_priority_, 0, kMaxKeyPriority));
    key.requests_per_minute = requests_per_minute_.value_or(0);
    key.tokens_per_minute = tokens_per_minute_.value_or(0);
    if (max_priority_.has_value()) key.max_priority = static_cast<int32_t>(*max_priority_);
    const std::string secret = NewApiKey();
    key.hash = HashApiKey(secret);
    if (output_.json()) {
      PrintJson(Json{{"name", key.name}, {"key", secret}, {"line", FormatApiKey(key)}},
                console->out);
    } else {
      console->out << FormatApiKey(key) << "\n";
      console->err << secret << "\n";
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status CheckLimit(absl::string_view flag, const std::optional<uint64_t>& given,
                                 uint64_t least, uint64_t most) {
    if (!given.has_value() || (*given >= least && *given <= most)) return absl::OkStatus();
    return UsageError(
        absl::StrCat(flag, " is ", *given, ", must be within ", least, " and ", most));
  }

  bool admin_ = false;
  std::optional<uint64_t> requests_per_minute_, tokens_per_minute_, max_priority_;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeKeysVerb() { return std::make_unique<KeysVerb>(); }

}  // namespace gatefold::cli
