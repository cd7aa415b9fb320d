#include "tests/integration/metrics_page.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

absl::StatusOr<std::string> Get(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string page;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(request.size())) {
      char buffer[1 << 14];
      for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) page.append(buffer, n);
    }
  }
  close(fd);
  if (!absl::StartsWith(page, "HTTP/1.1 200") && !absl::StartsWith(page, "HTTP/1.0 200")) {
    return absl::UnavailableError(absl::StrCat("port ", port, " serves no metrics"));
  }
  return page;
}

}  // namespace

absl::StatusOr<MetricsPage> MetricsPage::Fetch(Process* process, const std::string& line_begin) {
  GF_ASSIGN_OR_RETURN(const std::string line,
                      process->AwaitLine(line_begin, absl::Now() + absl::Seconds(20)));
  const size_t end = line.rfind("/metrics");
  const size_t colon = line.rfind(':', end);
  int port = 0;
  if (end == std::string::npos || colon == std::string::npos ||
      !absl::SimpleAtoi(line.substr(colon + 1, end - colon - 1), &port)) {
    return absl::NotFoundError(absl::StrCat("no metrics in \"", line, "\""));
  }
  GF_ASSIGN_OR_RETURN(const std::string text, Get(port));
  MetricsPage page;
  for (absl::string_view row : absl::StrSplit(text, '\n')) {
    const size_t space = row.rfind(' ');
    double value = 0;
    if (absl::StartsWith(row, "#") || space == absl::string_view::npos ||
        !absl::SimpleAtod(row.substr(space + 1), &value)) {
      continue;
    }
    page.values_[std::string(row.substr(0, space))] = value;
  }
  return page;
}

double MetricsPage::Value(const std::string& name_and_labels) const {
  const auto found = values_.find(name_and_labels);
  return found == values_.end() ? 0 : found->second;
}

double MetricsPage::Sum(const std::string& name) const {
  double sum = 0;
  for (const auto& [key, value] : values_) {
    if (key == name || absl::StartsWith(key, absl::StrCat(name, "{"))) sum += value;
  }
  return sum;
}

}  // namespace gatefold
