#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/tls_options.h"

namespace gatefold {

class CallContext;

// How connections are protected: TLS from files, mutual if both sides have a certificate and a CA,
// or plaintext. Sockets of this host (unix:) are plaintext always; file permissions protect them.
//
// The files are looked at once a second. What they hold is used for connections made from then on
// (within two seconds; those that are open stay open) if it is sound: a key that is not the
// certificate's, a certificate that expired or is not valid yet, or half a file is logged, and the
// old contents stay.
// Cheap to copy: copies share the files, and the thread that watches them. Threads: safe.
class TransportSecurity {
 public:
  TransportSecurity() = default;  // plaintext

  // Plaintext if the options are empty. Errors: kInvalidArgument names the flag that is missing, or
  // the file and what is wrong with it; kFailedPrecondition a key that others can read; kNotFound.
  static absl::StatusOr<TransportSecurity> ForServer(const TlsOptions& options);
  static absl::StatusOr<TransportSecurity> ForClient(const TlsOptions& options);

  bool tls() const { return files_ != nullptr; }
  // See TlsOptions.
  const std::string& server_name() const { return server_name_; }
  // Of a server, for ServerOptions::authorize: kPermissionDenied for peers whose certificate is not
  // for the name that TlsOptions asks for; null where it asks for none.
  std::function<absl::Status(CallContext*)> PeerCheck() const;
  // When the certificate in use expires; InfiniteFuture if there is none.
  absl::Time not_after() const;

  // For the address that is connected to, or listened at. On the wrong side: plaintext.
  std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const Address& address) const;
  std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const Address& address) const;

 private:
  class Files;

  std::shared_ptr<Files> files_;  // null: plaintext
  std::string server_name_, peer_name_;
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials_;
  std::shared_ptr<grpc::ServerCredentials> server_credentials_;
};

}  // namespace gatefold
