#include "tests/integration/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

std::string ProgramPath(const std::string& program) {
  const char* moved = std::getenv("GATEFOLD_BIN");  // where the tests were not built
  return absl::StrCat(moved != nullptr ? moved : GATEFOLD_BIN_DIR, "/", program);
}

absl::StatusOr<std::unique_ptr<Process>> Process::Start(const std::string& program,
                                                        std::vector<std::string> args,
                                                        const std::string& log_path) {
  args.insert(args.begin(), ProgramPath(program));
  if (access(args[0].c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(args[0], " is not there; build it first"));
  }
  std::unique_ptr<Process> process(new Process(std::move(args), log_path));
  GF_RETURN_IF_ERROR(process->Spawn());
  return process;
}

absl::Status Process::Spawn() {
  std::vector<char*> argv;
  for (const std::string& arg : command_) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  // Appending, for its threads write at the same time and no line may be lost.
  constexpr int kFlags = O_CREAT | O_TRUNC | O_APPEND | O_WRONLY | O_CLOEXEC;
  const int log = open(log_path_.c_str(), kFlags, 0600);
  if (log < 0) return absl::InternalError(absl::StrCat("cannot write ", log_path_));
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(log);
  ended_ = pid_ < 0;
  return ended_ ? absl::InternalError("fork failed") : absl::OkStatus();
}

Process::~Process() { Kill(); }

void Process::Kill() {
  if (Ended()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  ended_ = true;
  exit_code_ = 128 + SIGKILL;
}

absl::Status Process::Restart() {
  Kill();
  return Spawn();
}

bool Process::Ended() {
  int status = 0;
  if (!ended_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    ended_ = true;
    exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return ended_;
}

absl::StatusOr<std::string> Process::AwaitLine(const std::string& prefix, absl::Time deadline) {
  while (true) {
    const bool ended = Ended();
    const std::string log = Log();
    for (absl::string_view line : absl::StrSplit(log, '\n')) {
      if (absl::StartsWith(line, prefix)) return std::string(line);
    }
    const std::string tail = log.substr(log.size() > 2000 ? log.size() - 2000 : 0);
    if (ended) return absl::InternalError(absl::StrCat("exited with ", exit_code_, ":\n", tail));
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("no line \"", prefix, "...\" in:\n", tail));
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}

void Process::Signal(int signal) {
  if (!Ended()) kill(pid_, signal);
}

absl::StatusOr<int> Process::Wait(absl::Time deadline) {
  while (!Ended()) {
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("process ", pid_, " still runs"));
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return exit_code_;
}

std::string Process::Log() const {
  std::ifstream file(log_path_);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "gatefold-XXXXXX").string();
  GF_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace gatefold
