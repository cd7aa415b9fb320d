#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// Typed access to the keys of one JSON object, within the bounds of config_bounds.h. A key that is
// null counts as absent. The first error sticks and the readers return fallbacks from then on, so
// that a parser reads like the list of fields it is; ask status() at its end, before any value is
// used.
class ConfigReader {
 public:
  // `object` outlives the reader. `what` names the object in messages.
  ConfigReader(const nlohmann::json& object, std::string what);

  const absl::Status& status() const { return status_; }
  void Refuse(absl::Status status);
  // InvalidArgument, with the object's name before `why`.
  void RefuseValue(absl::string_view why);
  // Unimplemented, likewise.
  void RefuseFeature(absl::string_view feature);
  // The same for every feature of other models whose key is here with a value that does something.
  void RefuseForeignFeatures();
  // The same for what a generation_config.json asks of every request and we do not do.
  void RefuseForeignDefaults();

  // Null if absent.
  const nlohmann::json* Find(const char* key) const;
  bool Has(const char* key) const { return Find(key) != nullptr; }
  // Said to be null, where that is not the same as being left out.
  bool IsNull(const char* key) const;

  int RequiredInt(const char* key);
  int IntOr(const char* key, int fallback);
  double RequiredReal(const char* key);
  double RealOr(const char* key, double fallback);
  bool BoolOr(const char* key, bool fallback);
  std::string StringOr(const char* key, const std::string& fallback);
  // A number or a list of numbers.
  std::vector<int32_t> Ints(const char* key);

 private:
  int CheckedInt(const char* key, const nlohmann::json& value);
  double CheckedReal(const char* key, const nlohmann::json& value);

  const nlohmann::json& object_;
  const std::string what_;
  absl::Status status_;
};

}  // namespace gatefold
