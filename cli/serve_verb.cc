#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "cli/error_report.h"
#include "cli/local_flags.h"
#include "cli/local_router.h"
#include "cli/verbs.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"

namespace gatefold::cli {
namespace {

// As SIGTERM, also while a model is still loading. A process that is killed closes its pipes, so
// whoever holds the other end need not get to tell us anything.
void EndWithStandardInput() {
  char block[256];
  ssize_t n = 0;
  do {
    n = read(STDIN_FILENO, block, sizeof(block));
  } while (n > 0 || (n < 0 && errno == EINTR));
  kill(getpid(), SIGTERM);
}

class ServeVerb final : public Verb {
 public:
  absl::string_view name() const override { return "serve"; }
  absl::string_view summary() const override { return "Serves a model from this process."; }
  absl::string_view details() const override {
    return "Prints a line that starts with \"ready\" once requests can be sent. Runs until\n"
           "Ctrl-C or SIGTERM, which is a good end: the exit code is 0.\n"
           "`gatefold generate --router 127.0.0.1:7070 ...` asks it.\n";
  }

  void AddFlags(FlagSet* flags) override {
    flags->Add("model", "DIR", "folder of the model", &model_);
    flags->Add("model-name", "NAME", "as requests name it (default: the folder's name)",
               &model_name_);
    flags->Add("listen", "ADDRESS",
               "host:port or unix:/path (default 127.0.0.1:7070; port 0: any free one)", &listen_);
    flags->Add("tls-cert-file", "FILE", "certificate chain (PEM): TLS, but for unix: sockets",
               &tls_.cert_file);
    flags->Add("tls-key-file", "FILE", "its private key (PEM, mode 0600)", &tls_.key_file);
    flags->Add("tls-ca-file", "FILE", "CA (PEM): callers must present a certificate of it",
               &tls_.ca_file);
    flags->Add("api-keys-file", "FILE",
               "API keys (mode 0600; `gatefold keys` makes lines for it): callers need one of them",
               &api_keys_file_);
    flags->Add("metrics-port", "N", "port of /metrics; 0: any free one; -1: none (default)",
               &metrics_port_);
    flags->Add("log-format", "FORMAT", "of the log on stderr: text (default) or json",
               &log_format_);
    flags->Add("log-level", "LEVEL",
               "what is logged: debug, info, warning (default) or error, and what is graver; info "
               "has a line for each request",
               &log_level_);
    flags->Add("drain-limit", "TIME",
               "what requests under way are left to end in, after Ctrl-C or SIGTERM (default 60s)",
               &drain_limit_);
    flags->AddSwitch("until-stdin-ends",
                     "also end when standard input does: with the program that started this one",
                     &until_stdin_ends_);
    local_.AddTo(flags);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    if (!arguments.empty()) {
      return UsageError(absl::StrCat("takes no argument, as \"", arguments[0], "\""));
    }
    if (model_.empty()) return UsageError("say which model to serve: --model DIR");
    if (metrics_port_ < -1 || metrics_port_ > 65535) {
      return UsageError(absl::StrCat("--metrics-port is ", metrics_port_, ", must be -1 to 65535"));
    }
    // Before the weights are read, which may take minutes.
    if (const auto address = ParseAddress(listen_); !address.ok()) {
      return UsageError(absl::StrCat("--listen: ", address.status().message()));
    }
    GF_RETURN_IF_ERROR(SetUpLog());
    if (until_stdin_ends_) std::thread(EndWithStandardInput).detach();
    GF_ASSIGN_OR_RETURN(LocalRouterOptions options, local_.ToOptions(model_));
    options.model_name = model_name_;
    options.listen_address = listen_;
    GF_ASSIGN_OR_RETURN(options.security, TransportSecurity::ForServer(tls_));
    if (!api_keys_file_.empty()) {
      GF_ASSIGN_OR_RETURN(options.api_keys, ApiKeyring::Open({api_keys_file_}));
    }
    options.metrics_port = metrics_port_;
    options.drain_limit = drain_limit_;
    absl::Notification stop;
    std::atomic<bool> loaded = false;
    const Interrupts::Scope scope(console->interrupts, [&] {
      if (!loaded) _exit(kExitOk);  // there is nothing to finish
      if (!stop.HasBeenNotified()) stop.Notify();
    });
    absl::StatusOr<std::unique_ptr<LocalRouter>> router = LocalRouter::Start(options);
    if (!router.ok()) return ModelFolderError(model_, router.status());
    loaded = true;

    console->out << "ready " << (*router)->listen_address();
    if (metrics_port_ >= 0) {
      console->out << " metrics http://" << (*router)->metrics_address() << "/metrics";
    }
    console->out << std::endl;
    stop.WaitForNotification();
    console->err << "finishing what is under way\n";
    (*router)->Drain();
    return absl::OkStatus();
  }

 private:
  absl::Status SetUpLog() const {
    LogFormat format;
    LogLevel level;
    std::string error;
    if (!AbslParseFlag(log_format_, &format, &error)) {
      return UsageError(absl::StrCat("--log-format is \"", log_format_, "\", ", error));
    }
    if (!AbslParseFlag(log_level_, &level, &error)) {
      return UsageError(absl::StrCat("--log-level is \"", log_level_, "\", ", error));
    }
    SetLogFormat(format);
    SetLogLevel(level);
    return absl::OkStatus();
  }

  std::string model_;
  std::string model_name_;
  std::string listen_ = "127.0.0.1:7070";
  TlsOptions tls_;
  std::string api_keys_file_;
  int metrics_port_ = -1;
  std::string log_format_ = "text";
  std::string log_level_ = "warning";
  absl::Duration drain_limit_ = absl::Seconds(60);
  bool until_stdin_ends_ = false;
  LocalFlags local_;
};

}  // namespace

std::unique_ptr<Verb> MakeServeVerb() { return std::make_unique<ServeVerb>(); }

}  // namespace gatefold::cli
