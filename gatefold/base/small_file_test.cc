#include "gatefold/base/small_file.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;

class SmallFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text, mode_t mode) {
    const std::string path = ::testing::TempDir() + "/gatefold_small_file_test";
    std::ofstream(path) << text;
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  static absl::Status Check(uid_t owner, gid_t group, mode_t mode) {
    struct stat file = {};
    file.st_uid = owner;
    file.st_gid = group;
    file.st_mode = S_IFREG | mode;
    return CheckPrivateMode("tls.key", file, {1000, 2000});
  }
};

TEST_F(SmallFileTest, ReadsWhatOnlyTheOwnerCanRead) {
  for (const mode_t mode : {0600, 0400}) {
    const auto text = ReadPrivateFile(Write("secret", mode), 100);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, "secret");
  }
}

TEST_F(SmallFileTest, RefusesWhatOthersCanReadNamingFileAndMode) {
  const std::string path = Write("secret", 0644);
  const auto text = ReadPrivateFile(path, 100);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(text.status().message(), HasSubstr(path));
  EXPECT_THAT(text.status().message(), HasSubstr("0644"));
  EXPECT_THAT(text.status().message(), HasSubstr("chmod 600"));
}

TEST_F(SmallFileTest, TakesAGroupOfTheProcessOnlyOnRootsFiles) {
  EXPECT_TRUE(Check(0, 2000, 0440).ok());   // a Secret volume with fsGroup 2000
  EXPECT_TRUE(Check(0, 2000, 0640).ok());   // root:ssl-cert
  EXPECT_FALSE(Check(0, 3000, 0440).ok());  // not our group
  EXPECT_FALSE(Check(1000, 1000, 0640).ok());
  EXPECT_FALSE(Check(0, 2000, 0660).ok());
  EXPECT_FALSE(Check(0, 2000, 0444).ok());
  EXPECT_FALSE(Check(0, 0, 0604).ok());
  EXPECT_FALSE(Check(1000, 1000, 0602).ok());
}

TEST_F(SmallFileTest, ReadsNoMoreThanTheLimit) {
  EXPECT_TRUE(ReadSmallFile(Write("12345", 0644), 5).ok());
  const auto text = ReadSmallFile(Write("123456", 0644), 5);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(text.status().message(), HasSubstr("6 bytes; at most 5"));
}

TEST_F(SmallFileTest, TellsWhatIsMissing) {
  EXPECT_EQ(ReadSmallFile("/nowhere/at all", 5).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadSmallFile("/", 5).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gatefold
