#pragma once

#include <istream>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cli/flag_set.h"
#include "cli/interrupts.h"

namespace gatefold::cli {

// What a verb talks to besides the model.
struct Console {
  std::istream& in;
  std::ostream& out;  // results
  std::ostream& err;  // everything else
  bool in_is_terminal = false;
  Interrupts* interrupts = nullptr;
  bool out_is_terminal = false;
};

// `gatefold NAME ...`.
class Verb {
 public:
  virtual ~Verb() = default;

  virtual absl::string_view name() const = 0;
  virtual absl::string_view arguments() const { return ""; }  // as the help writes them
  virtual absl::string_view summary() const = 0;              // one line
  virtual absl::string_view details() const { return ""; }    // more lines, each ended

  virtual void AddFlags(FlagSet* flags) = 0;
  // `flags` has been parsed; `arguments` are what was left.
  virtual absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                           Console* console) = 0;
};

}  // namespace gatefold::cli
