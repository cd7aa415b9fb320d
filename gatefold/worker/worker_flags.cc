#include "gatefold/worker/worker_flags.h"

#include <cstdlib>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/command_line.h"
#include "gatefold/base/log.h"

ABSL_FLAG(std::string, name, "", "name for people; default: the address");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: the cores there are");
ABSL_FLAG(std::string, isa, "auto", "auto, avx512, avx2 or scalar; the numbers are the same");
ABSL_FLAG(int, n_slices, 8, "parts of a dense layer's MLP; the same in all services of a cluster");
ABSL_FLAG(int, metrics_port, 0, "port of /metrics; 0: any free one; -1: none");
ABSL_FLAG(int, health_port, -1, "port of plaintext health checks; 0: any free one; -1: none");
ABSL_FLAG(std::string, tls_cert_file, "",
          "own certificate chain (PEM): TLS on --listen, but for unix: sockets");
ABSL_FLAG(std::string, tls_key_file, "", "its private key (PEM, mode 0600)");
ABSL_FLAG(std::string, tls_ca_file, "", "CA (PEM): callers must present a certificate of it");
ABSL_FLAG(gatefold::LogFormat, log_format, gatefold::LogFormat::kKeyValue,
          "of the log on stderr: text (key=value), or json, an object per line");
ABSL_FLAG(gatefold::LogLevel, log_level, gatefold::LogLevel::kInfo,
          "what is logged: debug, info, warning or error, and what is graver");

namespace gatefold {

WorkerOptions WorkerOptionsFromFlags() {
  SetLogFormat(absl::GetFlag(FLAGS_log_format));
  SetLogLevel(absl::GetFlag(FLAGS_log_level));
  const auto values = FlagValues();
  std::vector<LogField> fields;
  for (const auto& [name, value] : values) fields.emplace_back(name, value);
  LogEvent(LogLevel::kInfo, "options", fields);
  WorkerOptions options;
  options.name = absl::GetFlag(FLAGS_name);
  options.n_threads = absl::GetFlag(FLAGS_threads);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.n_slices = absl::GetFlag(FLAGS_n_slices);
  options.metrics_port = absl::GetFlag(FLAGS_metrics_port);
  options.health_port = absl::GetFlag(FLAGS_health_port);
  options.tls.cert_file = absl::GetFlag(FLAGS_tls_cert_file);
  options.tls.key_file = absl::GetFlag(FLAGS_tls_key_file);
  options.tls.ca_file = absl::GetFlag(FLAGS_tls_ca_file);
  return options;
}

std::string VersionOf(const char* program) { return absl::StrCat(program, " ", kVersion); }

int ExitCode(const char* program, const absl::Status& why_not) {
  if (CurrentLogFormat() == LogFormat::kJson) {
    LogEvent(LogLevel::kError, "not_started",
             {{"program", program}, {"error", why_not.ToString()}});
  } else {
    std::fprintf(stderr, "%s: %s\n", program, why_not.ToString().c_str());
  }
  return absl::IsInvalidArgument(why_not) ? 2 : 1;
}

void EndIfTerminated() {
  if (!TerminationRequested()) return;
  LogEvent(LogLevel::kInfo, "terminated", {{"because", "it was told to while it started"}});
  std::_Exit(0);  // whatever is loading would have to be waited for
}

}  // namespace gatefold
