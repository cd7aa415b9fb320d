#pragma once

// Certificates for tests, made by themselves.

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/rpc/tls_options.h"

namespace gatefold {

struct TestIdentity {
  std::string cert_pem;
  std::string key_pem;

  // Writes NAME.crt and NAME.key (mode 0600) into a folder, each in one piece as `mv` would.
  void Write(const std::string& folder, const std::string& name) const;
};

class TestCa {
 public:
  explicit TestCa(const std::string& name);
  ~TestCa();

  const std::string& cert_pem() const { return cert_pem_; }
  // Valid for `localhost`, 127.0.0.1 and `names`.
  TestIdentity Issue(const std::string& subject, const std::vector<std::string>& names = {},
                     absl::Time not_after = absl::Now() + absl::Hours(24),
                     absl::Time not_before = absl::Now() - absl::Hours(24)) const;

 private:
  struct Signer;
  std::unique_ptr<Signer> signer_;
  std::string cert_pem_;
};

// Replaces a file in one piece.
void WriteTestFile(const std::string& path, const std::string& text, int mode = 0600);

}  // namespace gatefold
