// A server as a pod runs it. Needs root to become nobody, and a mount namespace in which everything
// is read-only; says so where it cannot have them.

#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/rpc/test_certificates.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "models/gatefold-tiny-moe";

TEST(HardeningTest, ServesAsNobodyOnAReadOnlyRoot) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become nobody";
  constexpr uid_t kNobody = 65534;
  const TemporaryFolder folder;
  ASSERT_EQ(chmod(folder.Path(".").c_str(), 0755), 0);
  TestCa("ca").Issue("router").Write(folder.Path("."), "router");
  ASSERT_EQ(chown(folder.Path("router.key").c_str(), kNobody, kNobody), 0);
  char here[4096];
  ASSERT_NE(getcwd(here, sizeof here), nullptr);
  const std::string model = absl::StrCat(here, "/", kModel);
  const std::string as_nobody = absl::StrCat("setpriv --reuid=", kNobody, " --regid=", kNobody,
                                             " --clear-groups --no-new-privs");
  const std::string script =
      absl::StrCat("mount --make-rprivate / || exit 77\n",
                   "for m in $(awk '{print $2}' /proc/mounts | grep -vE '^/(proc|sys|dev)'); do",
                   " mount -o remount,bind,ro $m; done 2>/dev/null\n", "touch ", folder.Path("x"),
                   " 2>/dev/null && exit 77\n", "cd /\n", as_nobody, " test -r ", model,
                   "/config.json -a -x ", ProgramPath("gatefold"), " || exit 77\n", "sleep 2 | ",
                   as_nobody, " ", ProgramPath("gatefold"), " serve --until-stdin-ends --model ",
                   model, " --listen 127.0.0.1:0 --tls-cert-file ", folder.Path("router.crt"),
                   " --tls-key-file ", folder.Path("router.key"), " 2>&1\n");
  const std::string command =
      absl::StrCat("unshare -m sh -c \"$(cat <<'END'\n", script, "END\n)\"");
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char block[512];
  while (const size_t n = fread(block, 1, sizeof block, pipe)) output.append(block, n);
  const int status = pclose(pipe);
  if (WEXITSTATUS(status) == 77 || absl::StrContains(output, "Operation not permitted")) {
    GTEST_SKIP() << "no mount namespace here, or nobody may not read the build: " << output;
  }
  EXPECT_EQ(status, 0) << output;
  EXPECT_TRUE(absl::StrContains(output, "ready 127.0.0.1:")) << output;
}

}  // namespace
}  // namespace gatefold
