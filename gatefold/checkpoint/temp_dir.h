#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gatefold/base/check.h"

namespace gatefold {

// A folder of a test's own, gone with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "gatefold_test_XXXXXX").string();
    GF_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

  void Write(const std::string& name, const std::string& content) const {
    std::ofstream out(File(name), std::ios::binary);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    GF_CHECK(out.good());
  }

 private:
  std::string path_;
};

}  // namespace gatefold
