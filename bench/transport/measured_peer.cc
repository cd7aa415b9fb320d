#include "bench/transport/measured_peer.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace gatefold::bench {
namespace {

// A pipe to our own parent: short reads and writes end the process, it is of no use any more.
bool ReadAll(void* to, size_t bytes) {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = read(STDIN_FILENO, at, bytes);
    if (n <= 0) return false;
    at += n;
    bytes -= n;
  }
  return true;
}

bool WriteAll(const void* from, size_t bytes) {
  const char* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t n = write(STDOUT_FILENO, at, bytes);
    if (n <= 0) return false;
    at += n;
    bytes -= n;
  }
  return true;
}

}  // namespace

double NowMicros() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

void PrintAddress(const std::string& address) {
  std::printf("%s\n", address.c_str());
  std::fflush(stdout);
}

void ServeBursts(const std::function<void()>& round_trip) {
  round_trip();  // connects
  uint32_t burst_us;
  while (ReadAll(&burst_us, sizeof burst_us)) {
    std::vector<float> times;
    const double begin = NowMicros();
    for (double before = begin; before < begin + burst_us || times.size() < 3;) {
      round_trip();
      const double after = NowMicros();
      if (before > begin + burst_us / 5) times.push_back(static_cast<float>(after - before));
      before = after;
    }
    const auto n = static_cast<uint32_t>(times.size());
    if (!WriteAll(&n, sizeof n) || !WriteAll(times.data(), n * sizeof(float))) return;
  }
}

}  // namespace gatefold::bench
