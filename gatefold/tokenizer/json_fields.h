#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// Typed access to the keys of one JSON object of a tokenizer file. A key that is null counts as
// absent. The first error sticks and the readers return fallbacks from then on; ask status()
// before any value is used.
class JsonFields {
 public:
  // `object` outlives the reader; `path` names it in messages, as "model" or "pre_tokenizer[1]", or
  // is empty for a file's outermost, which whoever reads the file names.
  // InvalidArgument if it is not an object.
  JsonFields(const nlohmann::json& object, std::string path);

  const absl::Status& status() const { return status_; }
  const std::string& path() const { return path_; }
  std::string PathOf(absl::string_view key) const;

  // Null if absent.
  const nlohmann::json* Find(const char* key) const;
  // An empty array, and an error, if absent or no array.
  const nlohmann::json& RequiredArray(const char* key);
  const nlohmann::json& RequiredObject(const char* key);
  std::string RequiredString(const char* key);
  std::string StringOr(const char* key, absl::string_view fallback);
  bool BoolOr(const char* key, bool fallback);
  int64_t RequiredInt(const char* key, int64_t min, int64_t max);
  int64_t IntOr(const char* key, int64_t fallback, int64_t min, int64_t max);

  // InvalidArgument, as "path.key: why".
  void Refuse(absl::string_view key, absl::string_view why);
  // Unimplemented: the file asks for something real that is not supported.
  void RefuseFeature(absl::string_view feature);

 private:
  void Fail(absl::Status status);

  const nlohmann::json& object_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace gatefold
