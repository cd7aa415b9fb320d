#include "gatefold/tokenizer/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"

namespace gatefold {

using nlohmann::json;

JsonFields::JsonFields(const json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat(path_, path_.empty() ? "" : ": ", "not an object")));
  }
}

std::string JsonFields::PathOf(absl::string_view key) const {
  return path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
}

void JsonFields::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void JsonFields::Refuse(absl::string_view key, absl::string_view why) {
  Fail(absl::InvalidArgumentError(absl::StrCat(PathOf(key), ": ", why)));
}

void JsonFields::RefuseFeature(absl::string_view feature) {
  Fail(FeatureUnsupported(absl::StrCat(path_, ": ", feature)));
}

const json* JsonFields::Find(const char* key) const {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const json& JsonFields::RequiredArray(const char* key) {
  static const json* const kEmpty = new json(json::array());
  const json* value = Find(key);
  if (value != nullptr && value->is_array()) return *value;
  Refuse(key, value == nullptr ? "missing" : "not an array");
  return *kEmpty;
}

const json& JsonFields::RequiredObject(const char* key) {
  static const json* const kEmpty = new json(json::object());
  const json* value = Find(key);
  if (value != nullptr && value->is_object()) return *value;
  Refuse(key, value == nullptr ? "missing" : "not an object");
  return *kEmpty;
}

std::string JsonFields::RequiredString(const char* key) {
  if (Find(key) == nullptr) Refuse(key, "missing");
  return StringOr(key, "");
}

std::string JsonFields::StringOr(const char* key, absl::string_view fallback) {
  const json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (const auto* text = value->get_ptr<const std::string*>()) return *text;
  Refuse(key, "not a string");
  return std::string(fallback);
}

bool JsonFields::BoolOr(const char* key, bool fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (const auto* flag = value->get_ptr<const bool*>()) return *flag;
  Refuse(key, "not true or false");
  return fallback;
}

int64_t JsonFields::RequiredInt(const char* key, int64_t min, int64_t max) {
  if (Find(key) == nullptr) Refuse(key, "missing");
  return IntOr(key, min, min, max);
}

int64_t JsonFields::IntOr(const char* key, int64_t fallback, int64_t min, int64_t max) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (const auto* number = value->get_ptr<const json::number_unsigned_t*>()) {
    if (*number <= static_cast<uint64_t>(max) && static_cast<int64_t>(*number) >= min) {
      return static_cast<int64_t>(*number);
    }
  } else if (const auto* number = value->get_ptr<const json::number_integer_t*>()) {
    if (*number >= min && *number <= max) return *number;
  }
  Refuse(key, absl::StrCat("not a whole number from ", min, " to ", max));
  return fallback;
}

}  // namespace gatefold
