#pragma once

#include <string>

namespace gatefold {

// Files (PEM) that protect connections, as flags name them; none: plaintext. They are read again
// when they change.
struct TlsOptions {
  std::string cert_file;  // --tls-cert-file: own certificate, then its intermediates
  std::string key_file;   // --tls-key-file: its private key; mode 0600 or as small_file.h allows
  // --tls-ca-file: who is believed. For a server: its peers must present a certificate of this CA.
  // For a client: what servers are verified with; without it there is no TLS.
  std::string ca_file;
  // --tls-server-name, clients only: whom the server's certificate must be for. Empty: the host of
  // the address. For servers that are reached by addresses which come and go.
  std::string server_name;

  // --tls-peer-name, servers only: whom its peers' certificates must be for, too. Empty: everybody
  // whom the CA has certified. For CAs that certify others as well.
  std::string peer_name;

  bool empty() const {
    return cert_file.empty() && key_file.empty() && ca_file.empty() && server_name.empty() &&
           peer_name.empty();
  }
};

}  // namespace gatefold
