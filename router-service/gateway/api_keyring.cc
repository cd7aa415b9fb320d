#include "router-service/gateway/api_keyring.h"

#include <openssl/crypto.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr size_t kMaxKeyBytes = 512;  // of what callers send

}  // namespace

absl::StatusOr<std::unique_ptr<ApiKeyring>> ApiKeyring::Open(Options options) {
  std::unique_ptr<ApiKeyring> ring(new ApiKeyring(std::move(options)));
  GF_ASSIGN_OR_RETURN(std::string text, ring->Read());
  GF_RETURN_IF_ERROR(ring->Use(std::move(text)));
  if (ring->options_.interval > absl::ZeroDuration()) {
    ring->watch_.emplace(ring->options_.interval, [r = ring.get()] { r->Look(); });
  }
  return ring;
}

absl::StatusOr<std::string> ApiKeyring::Read() const {
  return ReadPrivateFile(options_.path, kMaxFileBytes);
}

std::shared_ptr<const ApiKeyring::Callers> ApiKeyring::callers() const {
  absl::MutexLock lock(&mu_);
  return callers_;
}

absl::Status ApiKeyring::Use(std::string text) {
  absl::StatusOr<std::vector<ApiKey>> keys = ParseApiKeys(text);
  if (!keys.ok()) return Annotate(keys.status(), options_.path);
  const std::shared_ptr<const Callers> old = callers();
  auto callers = std::make_shared<Callers>();
  for (const ApiKey& key : *keys) {
    std::shared_ptr<Caller> caller;
    for (size_t i = 0; old != nullptr && i < old->size(); ++i) {
      if ((*old)[i]->key() == key) caller = (*old)[i];
    }
    callers->push_back(caller ? caller : std::make_shared<Caller>(key, options_.clock));
  }
  LogEvent(LogLevel::kInfo, "api_keys_loaded",
           {{"file", options_.path}, {"keys", callers->size()}});
  used_ = std::move(text);
  absl::MutexLock lock(&mu_);
  callers_ = std::move(callers);
  return absl::OkStatus();
}

void ApiKeyring::Look() {
  absl::StatusOr<std::string> text = Read();
  absl::Status status = text.status();
  if (text.ok() && *text != used_) {
    if (*text != seen_) {
      seen_ = *std::move(text);
      return;
    }
    status = Use(*std::move(text));
  }
  if (!status.ok() && status != told_) {
    LogEvent(LogLevel::kError, "api_keys_refused",
             {{"reason", status.message()}, {"in_use", "what was loaded before"}});
  }
  told_ = status;
}

absl::StatusOr<std::shared_ptr<Caller>> ApiKeyring::Find(absl::string_view key) const {
  const ApiKeyHash hash = HashApiKey(key.substr(0, kMaxKeyBytes));
  const std::shared_ptr<const Callers> callers = this->callers();
  std::shared_ptr<Caller> found;
  for (const std::shared_ptr<Caller>& caller : *callers) {  // all of them
    if (CRYPTO_memcmp(caller->key().hash.data(), hash.data(), hash.size()) == 0) found = caller;
  }
  if (found == nullptr || key.size() > kMaxKeyBytes) {
    return ApiKeyInvalid("the API key is not one that may be used here");
  }
  if (found->key().revoked) return ApiKeyInvalid("the API key was revoked");
  return found;
}

absl::StatusOr<std::shared_ptr<Caller>> Authorize(const ApiKeyring& keys, absl::string_view method,
                                                  absl::string_view authorization) {
  if (absl::StartsWith(method, "/grpc.health.v1.Health/")) return std::shared_ptr<Caller>();
  constexpr absl::string_view kScheme = "bearer ";  // in any case, as RFC 7235 has it
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return ApiKeyMissing();
  const absl::string_view key = absl::StripAsciiWhitespace(authorization.substr(kScheme.size()));
  if (key.empty()) return ApiKeyMissing();
  GF_ASSIGN_OR_RETURN(std::shared_ptr<Caller> caller, keys.Find(key));
  // What changes the cluster, and what shows the addresses of its clients.
  const bool for_operators = absl::StartsWith(method, "/gatefold.cluster.v1.AdminService/") ||
                             absl::StartsWith(method, "/grpc.channelz.v1.Channelz/");
  if (for_operators && !caller->key().admin) return AdminKeyRequired(method);
  GF_RETURN_IF_ERROR(caller->TakeRequest());
  return caller;
}

}  // namespace gatefold
