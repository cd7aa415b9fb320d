#include "gatefold/checkpoint/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "gatefold/base/check.h"

namespace gatefold {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  GF_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::AddBytes(const void* data, size_t bytes) {
  GF_CHECK(EVP_DigestUpdate(context_, data, bytes) == 1);
}

void Sha256::AddNumber(uint64_t value) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
  AddBytes(bytes, sizeof bytes);
}

void Sha256::AddString(absl::string_view text) {
  AddNumber(text.size());
  AddBytes(text.data(), text.size());
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  GF_CHECK(EVP_DigestFinal_ex(context_, digest, &size) == 1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

}  // namespace gatefold
