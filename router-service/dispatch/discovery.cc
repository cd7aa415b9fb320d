#include "router-service/dispatch/discovery.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"

namespace gatefold {
namespace {

absl::StatusOr<std::vector<std::string>> AskDns(const std::string& host) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) return absl::UnavailableError(gai_strerror(error));
  std::vector<std::string> ips;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[INET6_ADDRSTRLEN] = {};
    if (one->ai_family == AF_INET) {
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ai_addr)->sin_addr, text,
                sizeof(text));
      ips.emplace_back(text);
    } else if (one->ai_family == AF_INET6) {
      inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(one->ai_addr)->sin6_addr, text,
                sizeof(text));
      ips.push_back(absl::StrCat("[", text, "]"));
    }
  }
  freeaddrinfo(found);
  return ips;
}

}  // namespace

absl::StatusOr<WorkerTargets> WorkerTargets::Parse(absl::string_view list) {
  WorkerTargets targets;
  for (absl::string_view part : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    part = absl::StripAsciiWhitespace(part);
    absl::string_view name = part;
    const bool dns = absl::ConsumePrefix(&name, "dns:");
    const absl::StatusOr<Address> address = ParseAddress(name);
    if (!address.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\": ", address.status().message()));
    }
    std::vector<std::string>& same = dns ? targets.names : targets.addresses;
    if (std::find(same.begin(), same.end(), name) != same.end()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is there twice"));
    }
    if (!dns) {
      targets.addresses.emplace_back(part);
    } else if (address->local() || address->port == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", part, "\": after dns: comes a host name and a port, as dns:name:7000"));
    } else {
      targets.names.emplace_back(name);
    }
  }
  return targets;
}

Discovery::Discovery(Options options) : options_(std::move(options)) {
  if (!options_.resolve) options_.resolve = AskDns;
  thread_ = std::thread([this] { Run(); });
}

Discovery::~Discovery() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

std::vector<std::string> Discovery::Resolve(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& name : names) {
    const size_t colon = name.rfind(':');
    const absl::StatusOr<std::vector<std::string>> ips = options_.resolve(name.substr(0, colon));
    auto& [addresses, told] = last_[name];
    std::string why_not;
    if (!ips.ok()) {
      why_not = std::string(ips.status().message());
    } else if (ips->empty()) {
      why_not = "no addresses";
    } else {
      addresses.clear();
      for (const std::string& ip : *ips) addresses.push_back(absl::StrCat(ip, name.substr(colon)));
    }
    if (!why_not.empty() && why_not != told) {
      LogEvent(LogLevel::kWarning, "name_not_resolved", {{"name", name}, {"reason", why_not}});
    }
    told = std::move(why_not);
    all.insert(all.end(), addresses.begin(), addresses.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void Discovery::Run() {
  std::optional<Found> before;
  while (true) {
    Found found{Resolve(options_.expert_names), Resolve(options_.attention_names)};
    if (found != before) {
      LogEvent(LogLevel::kInfo, "discovered",
               {{"experts", found.experts.size()}, {"attention", found.attention.size()}});
      options_.on_change(found);
      before = std::move(found);
    }
    absl::MutexLock lock(&mu_);
    const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_; };
    if (mu_.AwaitWithTimeout(absl::Condition(&stopping), options_.interval)) return;
  }
}

}  // namespace gatefold
