#include "gatefold/rpc/test_certificates.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {
namespace {

std::string TakeText(BIO* out) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(out, &text);
  std::string copy(text, static_cast<size_t>(size));
  BIO_free(out);
  return copy;
}

std::string CertPem(X509* certificate) {
  BIO* out = BIO_new(BIO_s_mem());
  GF_CHECK(PEM_write_bio_X509(out, certificate) == 1);
  return TakeText(out);
}

std::string KeyPem(EVP_PKEY* key) {
  BIO* out = BIO_new(BIO_s_mem());
  GF_CHECK(PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  return TakeText(out);
}

void AddExtension(X509* certificate, int kind, const std::string& value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str());
  GF_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* NewCertificate(const std::string& subject, EVP_PKEY* key, absl::Time not_before,
                     absl::Time not_after) {
  X509* certificate = X509_new();
  X509_set_version(certificate, X509_VERSION_3);
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1);
  ASN1_TIME_set(X509_getm_notBefore(certificate), absl::ToTimeT(not_before));
  ASN1_TIME_set(X509_getm_notAfter(certificate), absl::ToTimeT(not_after));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(subject.c_str()), -1, -1, 0);
  X509_set_pubkey(certificate, key);
  return certificate;
}

}  // namespace

void WriteTestFile(const std::string& path, const std::string& text, int mode) {
  const std::string next = path + ".next";
  std::remove(next.c_str());
  std::ofstream(next) << text;
  GF_CHECK(chmod(next.c_str(), static_cast<mode_t>(mode)) == 0);
  GF_CHECK(std::rename(next.c_str(), path.c_str()) == 0);
}

void TestIdentity::Write(const std::string& folder, const std::string& name) const {
  WriteTestFile(absl::StrCat(folder, "/", name, ".crt"), cert_pem, 0644);
  WriteTestFile(absl::StrCat(folder, "/", name, ".key"), key_pem, 0600);
}

struct TestCa::Signer {
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
};

TestCa::TestCa(const std::string& name) : signer_(std::make_unique<Signer>()) {
  signer_->key = EVP_EC_gen("P-256");
  GF_CHECK(signer_->key != nullptr);
  signer_->certificate = NewCertificate(name, signer_->key, absl::Now() - absl::Hours(24),
                                        absl::Now() + absl::Hours(48));
  X509_set_issuer_name(signer_->certificate, X509_get_subject_name(signer_->certificate));
  AddExtension(signer_->certificate, NID_basic_constraints, "critical,CA:TRUE");
  GF_CHECK(X509_sign(signer_->certificate, signer_->key, EVP_sha256()) > 0);
  cert_pem_ = CertPem(signer_->certificate);
}

TestCa::~TestCa() {
  X509_free(signer_->certificate);
  EVP_PKEY_free(signer_->key);
}

TestIdentity TestCa::Issue(const std::string& subject, const std::vector<std::string>& names,
                           absl::Time not_after, absl::Time not_before) const {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = NewCertificate(subject, key, not_before, not_after);
  X509_set_issuer_name(certificate, X509_get_subject_name(signer_->certificate));
  std::string san = "DNS:localhost,IP:127.0.0.1";
  for (const std::string& name : names) absl::StrAppend(&san, ",DNS:", name);
  AddExtension(certificate, NID_subject_alt_name, san);
  GF_CHECK(X509_sign(certificate, signer_->key, EVP_sha256()) > 0);
  TestIdentity identity = {CertPem(certificate), KeyPem(key)};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return identity;
}

}  // namespace gatefold
