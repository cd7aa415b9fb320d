#include "cli/compare/model_server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"

extern char** environ;

namespace gatefold::cli {
namespace {

absl::Status SystemError(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// For a socket, whose path must fit the 107 bytes of its address.
absl::StatusOr<std::string> MakeFolder() {
  std::error_code error;
  std::string parent = std::filesystem::temp_directory_path(error).string();
  if (error || parent.size() > 60) parent = "/tmp";
  std::string folder = parent + "/gatefold.XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return SystemError(folder.c_str());
  return folder;
}

// What a server writes after its start is nobody's, but a pipe that is full would stop it.
void ReadToTheEnd(int file) {
  char block[4096];
  ssize_t n = 0;
  do {
    n = read(file, block, sizeof(block));
  } while (n > 0 || (n < 0 && errno == EINTR));
}

// The last lines of what a process wrote: its reason to end.
std::string LastLines(absl::string_view text) {
  const std::vector<absl::string_view> lines =
      absl::StrSplit(absl::StripTrailingAsciiWhitespace(text), '\n');
  const size_t first = lines.size() > 2 ? lines.size() - 2 : 0;
  std::string last;
  for (size_t i = first; i < lines.size(); ++i) {
    absl::StrAppend(&last, i > first ? "; " : "", lines[i]);
  }
  return last;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelServer>> ModelServer::Start(
    const std::string& model_dir, const std::vector<std::string>& flags, Interrupts* interrupts) {
  std::unique_ptr<ModelServer> server(new ModelServer());
  GF_ASSIGN_OR_RETURN(const std::string folder, MakeFolder());
  server->folder_ = folder;
  const std::string address = absl::StrCat("unix:", folder, "/serve.sock");
  // Prompts of several rounds begin alike, and what is measured is computing them.
  std::vector<std::string> command = {"gatefold",
                                      "serve",
                                      "--model=" + model_dir,
                                      "--listen=" + address,
                                      "--until-stdin-ends",
                                      "--prefix-cache=off"};
  // What the environment says of these is meant for a router elsewhere.
  for (const char* flag :
       {"--tls-cert-file=", "--tls-key-file=", "--tls-ca-file=", "--api-keys-file="}) {
    command.push_back(flag);
  }
  command.insert(command.end(), flags.begin(), flags.end());
  const absl::Time began = absl::Now();
  GF_RETURN_IF_ERROR(server->Spawn(command));
  GF_RETURN_IF_ERROR(server->AwaitReady(model_dir, interrupts));
  server->load_seconds_ = absl::ToDoubleSeconds(absl::Now() - began);
  ConnectionFlags place;
  place.router = address;
  GF_ASSIGN_OR_RETURN(server->connection_, Connection::Open(place, interrupts));
  return server;
}

absl::Status ModelServer::Spawn(const std::vector<std::string>& command) {
  int output[2], input[2];
  if (pipe2(output, O_CLOEXEC) != 0) return SystemError("a pipe");
  output_ = output[0];
  if (pipe2(input, O_CLOEXEC) != 0) {
    const absl::Status status = SystemError("a pipe");
    close(output[1]);
    return status;
  }
  input_ = input[1];
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output[1], STDERR_FILENO);
  // A group of its own: Ctrl-C ends us, and we end it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const int error =
      posix_spawn(&pid_, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(output[1]);
  close(input[0]);
  if (error == 0) return absl::OkStatus();
  pid_ = -1;
  errno = error;
  return SystemError("gatefold serve");
}

absl::Status ModelServer::AwaitReady(const std::string& model_dir, Interrupts* interrupts) {
  // With something under way, an interrupt is ours to act on.
  const Interrupts::Scope scope(interrupts, [] {});
  std::string text;
  for (;;) {
    if (interrupts != nullptr && interrupts->raised()) return absl::CancelledError("interrupted");
    pollfd readable{output_, POLLIN, 0};
    if (poll(&readable, 1, /*timeout=*/100) <= 0) continue;
    char block[4096];
    const ssize_t n = read(output_, block, sizeof(block));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(model_dir, " could not be served: ", LastLines(text)));
    }
    text.append(block, static_cast<size_t>(n));
    if (absl::StartsWith(text, "ready ") || absl::StrContains(text, "\nready ")) {
      drain_ = std::thread(ReadToTheEnd, output_);
      return absl::OkStatus();
    }
  }
}

ModelServer::~ModelServer() {
  connection_.reset();
  if (input_ >= 0) close(input_);
  if (pid_ > 0) Stop();
  if (drain_.joinable()) drain_.join();
  if (output_ >= 0) close(output_);
  std::error_code ignored;
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

void ModelServer::Stop() {
  // SIGTERM drains; nothing is under way, so this takes moments. One that hangs is killed.
  kill(pid_, SIGTERM);
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (waitpid(pid_, nullptr, WNOHANG) == 0) {
    if (absl::Now() > deadline) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      return;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}

absl::StatusOr<uint64_t> ModelServer::PeakMemoryBytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  for (std::string line; std::getline(file, line);) {
    absl::string_view value = line;
    if (!absl::ConsumePrefix(&value, "VmHWM:")) continue;
    uint64_t kilobytes = 0;
    value = absl::StripAsciiWhitespace(value);
    absl::ConsumeSuffix(&value, " kB");
    if (absl::SimpleAtoi(value, &kilobytes)) return kilobytes * 1024;
  }
  return absl::UnavailableError("no peak of memory in /proc");
}

}  // namespace gatefold::cli
