#include "cli/plan/quantity.h"

#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gatefold::cli {
namespace {

struct Unit {
  const char* name;
  double factor;
};
constexpr Unit kBytes[] = {
    {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
    {"kB", 1e3},     {"MB", 1e6},        {"GB", 1e9},           {"TB", 1e12}};
constexpr Unit kBytesPerSecond[] = {
    {"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}};
constexpr Unit kOperations[] = {{"GFLOP/s", 1e9}, {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}};
constexpr Unit kSeconds[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};

template <size_t n>
absl::Status Parse(absl::string_view text, const Unit (&units)[n], const char* example,
                   double* value) {
  for (const Unit& unit : units) {
    absl::string_view number = text;
    double parsed = 0;
    if (!absl::ConsumeSuffix(&number, unit.name) || !absl::SimpleAtod(number, &parsed)) continue;
    parsed *= unit.factor;
    if (!std::isfinite(parsed) || parsed <= 0) break;
    *value = parsed;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" must be a positive number with a unit, as ", example));
}

}  // namespace

absl::Status ParseQuantity(absl::string_view text, QuantityKind kind, double* value) {
  switch (kind) {
    case QuantityKind::kBytes:
      return Parse(text, kBytes, "80GiB", value);
    case QuantityKind::kBytesPerSecond:
      return Parse(text, kBytesPerSecond, "35GB/s or 25Gbit/s", value);
    case QuantityKind::kOperationsPerSecond:
      return Parse(text, kOperations, "200GFLOP/s", value);
    case QuantityKind::kSeconds:
      return Parse(text, kSeconds, "81.3us", value);
  }
  return absl::InternalError("no such quantity");
}

}  // namespace gatefold::cli
