#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gatefold {

struct CertificateInfo {
  std::string subject;  // as "CN = expert-0"
  absl::Time not_after;
};

// The first certificate of a chain in PEM. kInvalidArgument if there is none or one of the chain
// cannot be read, or if `key_pem` does not hold the first one's private key (without a passphrase),
// or if `now` is before or after it is valid.
absl::StatusOr<CertificateInfo> CheckKeyPair(absl::string_view cert_pem, absl::string_view key_pem,
                                             absl::Time now);

// kInvalidArgument if there is no certificate, or one that cannot be read.
absl::Status CheckCaBundle(absl::string_view pem);

}  // namespace gatefold
