#include "gatefold/rpc/pem.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Certificate = std::unique_ptr<X509, Free>;
using Key = std::unique_ptr<EVP_PKEY, Free>;

std::unique_ptr<BIO, Free> Open(absl::string_view pem) {
  return std::unique_ptr<BIO, Free>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// An empty passphrase, where OpenSSL would ask the terminal for one.
int NoPassphrase(char*, int, int, void*) { return 0; }

// All there are, at least one. gRPC would go by those before the first that it cannot read.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(absl::string_view pem,
                                                          absl::string_view file) {
  const std::unique_ptr<BIO, Free> in = Open(pem);
  std::vector<Certificate> certificates;
  while (X509* certificate = PEM_read_bio_X509(in.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.emplace_back(certificate);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (!at_end) {
    return absl::InvalidArgumentError(absl::StrCat("certificate ", certificates.size() + 1, " of ",
                                                   file, " is broken or cut off"));
  }
  if (certificates.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, " holds no certificate in PEM"));
  }
  return certificates;
}

Key ReadKey(absl::string_view pem) {
  Key key(PEM_read_bio_PrivateKey(Open(pem).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  return key;
}

std::string Subject(X509* certificate) {
  const std::unique_ptr<BIO, Free> out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_ONELINE);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

absl::Time FromAsn1(const ASN1_TIME* time, absl::Time otherwise) {
  std::tm utc = {};
  if (ASN1_TIME_to_tm(time, &utc) != 1) return otherwise;
  return absl::FromTM(utc, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<CertificateInfo> CheckKeyPair(absl::string_view cert_pem, absl::string_view key_pem,
                                             absl::Time now) {
  GF_ASSIGN_OR_RETURN(const std::vector<Certificate> chain,
                      ReadCertificates(cert_pem, "the certificate file"));
  const Certificate& certificate = chain.front();
  const Key key = ReadKey(key_pem);
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        "the key file holds no private key in PEM, or one with a passphrase");
  }
  const bool belongs = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!belongs) return absl::InvalidArgumentError("the key is not that of the certificate");
  CertificateInfo info = {Subject(certificate.get()),
                          FromAsn1(X509_get0_notAfter(certificate.get()), absl::InfinitePast())};
  const absl::Time not_before =
      FromAsn1(X509_get0_notBefore(certificate.get()), absl::InfiniteFuture());
  if (not_before > now) {
    return absl::InvalidArgumentError(absl::StrCat("the certificate of ", info.subject,
                                                   " is not valid before ",
                                                   absl::FormatTime(not_before)));
  }
  if (info.not_after <= now) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the certificate of ", info.subject, " expired at ", absl::FormatTime(info.not_after)));
  }
  return info;
}

absl::Status CheckCaBundle(absl::string_view pem) {
  return ReadCertificates(pem, "the CA file").status();
}

}  // namespace gatefold
