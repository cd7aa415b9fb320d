#include "gatefold/rpc/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "gatefold/base/periodic_task.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/pem.h"
#include "gatefold/rpc/published_file.h"

namespace gatefold {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr absl::Duration kInterval = absl::Seconds(1);
constexpr unsigned kGrpcIntervalSeconds = 1;

// What the files hold.
struct Contents {
  std::string identity;  // key and certificates in one, so that a reader never mixes old and new
  std::string roots;
  CertificateInfo certificate{"", absl::InfiniteFuture()};
};

absl::StatusOr<Contents> ReadContents(const TlsOptions& options, absl::Time now) {
  Contents contents;
  if (!options.cert_file.empty()) {
    GF_ASSIGN_OR_RETURN(const std::string cert, ReadSmallFile(options.cert_file, kMaxFileBytes));
    GF_ASSIGN_OR_RETURN(const std::string key, ReadPrivateFile(options.key_file, kMaxFileBytes));
    absl::StatusOr<CertificateInfo> checked = CheckKeyPair(cert, key, now);
    if (!checked.ok()) {
      return Annotate(checked.status(), absl::StrCat(options.cert_file, " and ", options.key_file));
    }
    contents.certificate = *std::move(checked);
    contents.identity = absl::StrCat(key, "\n", cert);
  }
  if (!options.ca_file.empty()) {
    GF_ASSIGN_OR_RETURN(contents.roots, ReadSmallFile(options.ca_file, kMaxFileBytes));
    GF_RETURN_IF_ERROR(Annotate(CheckCaBundle(contents.roots), options.ca_file));
  }
  return contents;
}

absl::Status CheckPair(const TlsOptions& options) {
  if (options.cert_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.cert_file.empty() ? "--tls-key-file" : "--tls-cert-file", " is given without ",
        options.cert_file.empty() ? "--tls-cert-file" : "--tls-key-file"));
  }
  return absl::OkStatus();
}

}  // namespace

// The files of one TransportSecurity, and the thread that looks at them.
class TransportSecurity::Files {
 public:
  static absl::StatusOr<std::shared_ptr<Files>> Load(const TlsOptions& options) {
    auto files = std::make_shared<Files>(options);
    GF_ASSIGN_OR_RETURN(Contents contents, ReadContents(options, absl::Now()));
    GF_RETURN_IF_ERROR(files->Use(std::move(contents)));
    files->watch_.emplace(kInterval, [f = files.get()] { f->Look(); });
    return files;
  }

  explicit Files(const TlsOptions& options) : options_(options) {}

  absl::Time not_after() const {
    absl::MutexLock lock(&mu_);
    return not_after_;
  }

  std::shared_ptr<grpc::experimental::CertificateProviderInterface> MakeProvider() const {
    const std::string identity = options_.cert_file.empty() ? "" : identity_.path();
    const std::string roots = options_.ca_file.empty() ? "" : roots_.path();
    return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
        identity, identity, roots, kGrpcIntervalSeconds);
  }

 private:
  absl::Status Use(Contents contents) {
    if (!contents.identity.empty()) GF_RETURN_IF_ERROR(identity_.Publish(contents.identity));
    if (!contents.roots.empty()) GF_RETURN_IF_ERROR(roots_.Publish(contents.roots));
    LogEvent(LogLevel::kInfo, "tls_files_loaded",
             {{"certificate", contents.certificate.subject},
              {"not_after", absl::FormatTime(contents.certificate.not_after)},
              {"cert_file", options_.cert_file},
              {"ca_file", options_.ca_file}});
    absl::MutexLock lock(&mu_);
    not_after_ = contents.certificate.not_after;
    used_ = std::move(contents);
    return absl::OkStatus();
  }

  void Look() {
    absl::StatusOr<Contents> contents = ReadContents(options_, absl::Now());
    absl::Status status = contents.status();
    if (contents.ok() && Differs(*contents)) status = Use(*std::move(contents));
    Note(status);
  }

  bool Differs(const Contents& contents) const {
    return contents.identity != used_.identity || contents.roots != used_.roots;
  }

  // Says once what is wrong, and only if it still is at the second look: files that are replaced
  // one after the other do not match for a moment.
  void Note(const absl::Status& status) {
    if (status.ok()) {
      n_failures_ = 0;
    } else if (++n_failures_ == 2) {
      LogEvent(LogLevel::kError, "tls_files_refused",
               {{"reason", status.message()}, {"in_use", "what was loaded before"}});
    }
  }

  const TlsOptions options_;
  PublishedFile identity_, roots_;
  Contents used_;  // by the watching thread, once there is one
  int n_failures_ = 0;
  mutable absl::Mutex mu_;
  absl::Time not_after_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  std::optional<PeriodicTask> watch_;  // last: it uses the others
};

absl::StatusOr<TransportSecurity> TransportSecurity::ForServer(const TlsOptions& options) {
  TransportSecurity security;
  if (options.empty()) return security;
  GF_RETURN_IF_ERROR(CheckPair(options));
  if (options.cert_file.empty()) {
    return absl::InvalidArgumentError(
        "--tls-ca-file needs --tls-cert-file and --tls-key-file: a TLS server has a certificate");
  }
  if (!options.peer_name.empty() && options.ca_file.empty()) {
    return absl::InvalidArgumentError(
        "--tls-peer-name needs --tls-ca-file: peers must have a certificate to have a name");
  }
  GF_ASSIGN_OR_RETURN(security.files_, Files::Load(options));
  security.peer_name_ = options.peer_name;
  grpc::experimental::TlsServerCredentialsOptions tls(security.files_->MakeProvider());
  tls.watch_identity_key_cert_pairs();
  if (options.ca_file.empty()) {
    tls.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    tls.watch_root_certs();
    tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  security.server_credentials_ = grpc::experimental::TlsServerCredentials(tls);
  return security;
}

absl::StatusOr<TransportSecurity> TransportSecurity::ForClient(const TlsOptions& options) {
  TransportSecurity security;
  if (options.empty()) return security;
  GF_RETURN_IF_ERROR(CheckPair(options));
  if (options.ca_file.empty()) {
    return absl::InvalidArgumentError(
        "--tls-ca-file is missing: whose certificates are servers to have?");
  }
  GF_ASSIGN_OR_RETURN(security.files_, Files::Load(options));
  security.server_name_ = options.server_name;
  grpc::experimental::TlsChannelCredentialsOptions tls;
  tls.set_certificate_provider(security.files_->MakeProvider());
  tls.watch_root_certs();
  if (!options.cert_file.empty()) tls.watch_identity_key_cert_pairs();
  security.channel_credentials_ = grpc::experimental::TlsCredentials(tls);
  return security;
}

absl::Time TransportSecurity::not_after() const {
  return files_ == nullptr ? absl::InfiniteFuture() : files_->not_after();
}

std::function<absl::Status(CallContext*)> TransportSecurity::PeerCheck() const {
  if (peer_name_.empty()) return nullptr;
  return [name = peer_name_](CallContext* call) {
    const std::vector<std::string>& names = call->peer_names();
    const bool local = absl::StartsWith(call->peer(), "unix");  // plaintext, by file permissions
    if (local || std::find(names.begin(), names.end(), name) != names.end()) {
      return absl::OkStatus();
    }
    return absl::PermissionDeniedError(
        absl::StrCat("the peer's certificate is not for ", name, ", as --tls-peer-name wants"));
  };
}

std::shared_ptr<grpc::ChannelCredentials> TransportSecurity::ChannelCredentials(
    const Address& address) const {
  if (address.local() || channel_credentials_ == nullptr) return grpc::InsecureChannelCredentials();
  return channel_credentials_;
}

std::shared_ptr<grpc::ServerCredentials> TransportSecurity::ServerCredentials(
    const Address& address) const {
  if (address.local() || server_credentials_ == nullptr) return grpc::InsecureServerCredentials();
  return server_credentials_;
}

}  // namespace gatefold
