#include "bench/transport/child.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace gatefold::bench {
namespace {

[[noreturn]] void Exec(const std::vector<std::string>& flags, const std::vector<int>& cpus, int in,
                       int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!cpus.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu : cpus) CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  dup2(in, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  std::vector<char*> arguments;
  std::string name = "transport_bench";
  arguments.push_back(name.data());
  for (const std::string& flag : flags) arguments.push_back(const_cast<char*>(flag.c_str()));
  arguments.push_back(nullptr);
  execv("/proc/self/exe", arguments.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<Child> Child::Start(const std::vector<std::string>& flags,
                                   const std::vector<int>& cpus) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "pipe");
  }
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) Exec(flags, cpus, in[0], out[1]);
  close(in[0]);
  close(out[1]);
  return Child(pid, in[1], out[0]);
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), in_(other.in_), out_(other.out_) {}

Child::~Child() {
  if (pid_ < 0) return;
  close(in_);
  close(out_);
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Child::Stop() { kill(pid_, SIGSTOP); }
void Child::Continue() { kill(pid_, SIGCONT); }

bool Child::ReadAll(void* to, size_t bytes) {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = read(out_, at, bytes);
    if (n <= 0) return false;
    at += n;
    bytes -= n;
  }
  return true;
}

absl::StatusOr<std::string> Child::ReadLine() {
  std::string line;
  char c;
  while (ReadAll(&c, 1)) {
    if (c == '\n') return line;
    line.push_back(c);
  }
  return absl::UnavailableError("a measured process ended before it was ready");
}

absl::StatusOr<std::vector<float>> Child::Burst(uint32_t burst_us) {
  uint32_t n = 0;
  if (write(in_, &burst_us, sizeof burst_us) != sizeof burst_us || !ReadAll(&n, sizeof n)) {
    return absl::UnavailableError("a measured client ended");
  }
  std::vector<float> times(n);
  if (!ReadAll(times.data(), n * sizeof(float))) {
    return absl::UnavailableError("a measured client ended");
  }
  return times;
}

}  // namespace gatefold::bench
