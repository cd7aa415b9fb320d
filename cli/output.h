#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cli/flag_set.h"
#include "nlohmann/json.hpp"

namespace gatefold::cli {

using Json = nlohmann::ordered_json;  // keys stay in the order written

// -o table|json.
struct OutputFlag {
  std::string format = "table";

  void AddTo(FlagSet* flags);
  absl::Status Check() const;
  bool json() const { return format == "json"; }
};

// One line. Strings that are not UTF-8 get U+FFFD where they are broken.
void PrintJson(const Json& json, std::ostream& out);

// Columns as wide as their widest cell; those of numbers are flushed right.
class Table {
 public:
  // A header that starts with '>' makes a column of numbers.
  explicit Table(std::vector<std::string> headers);
  void AddRow(std::vector<std::string> cells);
  void Print(std::ostream& out) const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // headers first
};

// "1.5 GB", "640 B".
std::string FormatBytes(double bytes);
// Quoted, with control characters and broken UTF-8 escaped: for showing tokens.
std::string Quoted(absl::string_view bytes);

}  // namespace gatefold::cli
