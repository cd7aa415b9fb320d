#include "gatefold/checkpoint/safetensors_header_reader.h"

#include <cstring>
#include <limits>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

using nlohmann::json;

// Deeper than any real header, shallow enough to say no to a nesting bomb in an unknown field.
constexpr size_t kMaxDepth = 16;
constexpr size_t kMaxRank = 32;
constexpr size_t kMaxMetadata = 100'000;  // a map costs some ten times the text of a short entry

// Reads the header as a stream of events: a document tree of 100 MB of JSON would cost gigabytes.
class HeaderEvents {
 public:
  explicit HeaderEvents(SafetensorsHeader* header) : header_(header) {}

  const absl::Status& status() const { return status_; }

  bool null() {
    if (place_ == Place::kTop && in_metadata_key_) return true;  // "__metadata__": null
    return Scalar("null");
  }
  bool boolean(bool) { return Scalar("a boolean"); }
  bool number_integer(json::number_integer_t) { return Scalar("a negative number"); }
  bool number_float(json::number_float_t, const std::string& text) {
    return Scalar(absl::StrCat("the number ", PrintableName(text), ", not a whole one in range"));
  }
  bool binary(json::binary_t&) { return Scalar("binary"); }

  bool number_unsigned(json::number_unsigned_t value) {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return Scalar("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Refuse(absl::StrCat("the number ", value, " is too large"));
    }
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == kMaxRank) {
        return Refuse(absl::StrCat("more than ", kMaxRank, " dimensions"));
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (n_offsets_ == 2) return Refuse("data_offsets has more than two numbers");
    (n_offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) {
      header_->metadata[metadata_key_] = std::move(value);
      return true;
    }
    if (place_ != Place::kEntry || field_ != Field::kDType) return Scalar("a string");
    tensor_.dtype = std::move(value);
    return true;
  }

  bool start_object(size_t) {
    if (++depth_ > kMaxDepth) return Refuse("nested too deep");
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = in_metadata_key_ ? Place::kMetadata : Place::kEntry;
        if (place_ == Place::kEntry) StartEntry();
        return true;
      case Place::kEntry:
        if (field_ != Field::kUnknown) return Refuse(absl::StrCat(FieldName(), " is an object"));
        return StartUnknown();
      case Place::kUnknown:
        return StartUnknown();
      default:
        return Scalar("an object");
    }
  }

  bool key(std::string& key) {
    switch (place_) {
      case Place::kTop:
        in_metadata_key_ = key == "__metadata__";
        if (in_metadata_key_ && std::exchange(seen_metadata_, true)) {
          return Refuse("__metadata__ appears twice");
        }
        if (!in_metadata_key_) tensor_.name = std::move(key);
        return true;
      case Place::kMetadata:
        metadata_key_ = std::move(key);
        if (header_->metadata.size() == kMaxMetadata) return Refuse("too much metadata");
        if (header_->metadata.count(metadata_key_) == 0) return true;
        return Refuse(
            absl::StrCat("metadata key \"", PrintableName(metadata_key_), "\" appears twice"));
      case Place::kEntry:
        return EntryKey(key);
      default:
        return true;
    }
  }

  bool end_object() {
    --depth_;
    switch (place_) {
      case Place::kMetadata:
        place_ = Place::kTop;
        return true;
      case Place::kEntry:
        place_ = Place::kTop;
        return EndEntry();
      case Place::kUnknown:
        return EndUnknown();
      default:
        return true;
    }
  }

  bool start_array(size_t) {
    if (++depth_ > kMaxDepth) return Refuse("nested too deep");
    if (place_ == Place::kUnknown) return StartUnknown();
    if (place_ != Place::kEntry || field_ == Field::kDType) return Scalar("an array");
    if (field_ == Field::kUnknown) return StartUnknown();
    place_ = field_ == Field::kShape ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() {
    --depth_;
    if (place_ == Place::kUnknown) return EndUnknown();
    if (place_ == Place::kOffsets && n_offsets_ != 2) {
      return Refuse(absl::StrCat("data_offsets has ", n_offsets_, " numbers, not two"));
    }
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(size_t position, const std::string& token, const json::exception&) {
    status_ =
        absl::InvalidArgumentError(absl::StrCat("the header is not valid JSON at byte ", position,
                                                ", near \"", PrintableName(token), "\""));
    return false;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kUnknown };
  enum class Field { kDType, kShape, kOffsets, kUnknown };

  absl::string_view FieldName() const {
    switch (field_) {
      case Field::kDType:
        return "dtype";
      case Field::kShape:
        return "shape";
      case Field::kOffsets:
        return "data_offsets";
      case Field::kUnknown:
        break;
    }
    return "the entry";
  }

  bool Refuse(absl::string_view why) {
    if (place_ == Place::kStart || place_ == Place::kTop || place_ == Place::kMetadata) {
      status_ = absl::InvalidArgumentError(absl::StrCat("the header: ", why));
    } else {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("tensor \"", PrintableName(tensor_.name), "\": ", why));
    }
    return false;
  }

  // A value of a kind that has no business where it stands, unless a field we do not know has it.
  bool Scalar(absl::string_view kind) {
    switch (place_) {
      case Place::kStart:
        return Refuse(absl::StrCat("is ", kind, ", not an object"));
      case Place::kTop:
        if (in_metadata_key_) return Refuse(absl::StrCat("__metadata__ is ", kind));
        place_ = Place::kEntry;  // so that the message names the tensor
        return Refuse(absl::StrCat("its entry is ", kind, ", not an object"));
      case Place::kMetadata:
        return Refuse(absl::StrCat("metadata \"", PrintableName(metadata_key_), "\" is ", kind,
                                   ", not a string"));
      case Place::kEntry:
        if (field_ == Field::kUnknown) return true;
        return Refuse(absl::StrCat(FieldName(), " is ", kind));
      case Place::kShape:
      case Place::kOffsets:
        return Refuse(absl::StrCat(FieldName(), " has ", kind));
      case Place::kUnknown:
        return true;
    }
    return false;
  }

  void StartEntry() {
    std::string name = std::move(tensor_.name);
    tensor_ = SafetensorsTensor();
    tensor_.name = std::move(name);
    seen_fields_.clear();
    n_offsets_ = 0;
  }

  bool EntryKey(const std::string& key) {
    if (!seen_fields_.insert(key).second) {
      return Refuse(absl::StrCat("field \"", PrintableName(key), "\" appears twice"));
    }
    field_ = key == "dtype"          ? Field::kDType
             : key == "shape"        ? Field::kShape
             : key == "data_offsets" ? Field::kOffsets
                                     : Field::kUnknown;
    return true;
  }

  bool EndEntry() {
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (seen_fields_.count(field) > 0) continue;
      place_ = Place::kEntry;
      return Refuse(absl::StrCat("has no ", field));
    }
    header_->tensors.push_back(std::move(tensor_));
    return true;
  }

  bool StartUnknown() {
    if (place_ != Place::kUnknown) unknown_depth_ = depth_;
    place_ = Place::kUnknown;
    return true;
  }

  // `depth_` has been lowered already.
  bool EndUnknown() {
    if (depth_ < unknown_depth_) place_ = Place::kEntry;
    return true;
  }

  SafetensorsHeader* const header_;
  absl::Status status_;
  Place place_ = Place::kStart;
  Field field_ = Field::kUnknown;
  size_t depth_ = 0;
  size_t unknown_depth_ = 0;  // where the unknown field began
  bool in_metadata_key_ = false;
  bool seen_metadata_ = false;
  std::string metadata_key_;
  SafetensorsTensor tensor_;
  int n_offsets_ = 0;
  std::unordered_set<std::string> seen_fields_;
};

}  // namespace

absl::Status ReadSafetensorsHeader(absl::string_view text, SafetensorsHeader* header) {
  if (text.empty() || text[0] != '{') {
    return absl::InvalidArgumentError("the header does not start with '{'");
  }
  // The parser would take a NUL for the end of its input.
  if (std::memchr(text.data(), 0, text.size()) != nullptr) {
    return absl::InvalidArgumentError("the header has a NUL byte");
  }
  HeaderEvents events(header);
  if (json::sax_parse(text.data(), text.data() + text.size(), &events)) return absl::OkStatus();
  GF_RETURN_IF_ERROR(events.status());
  return absl::InvalidArgumentError("the header is not valid JSON");
}

}  // namespace gatefold
