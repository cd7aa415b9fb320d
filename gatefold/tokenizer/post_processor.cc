#include "gatefold/tokenizer/post_processor.h"

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/json_fields.h"

namespace gatefold {
namespace {

constexpr size_t kMaxIds = 64;

class Reader {
 public:
  Reader(int vocab_size, PostProcessor* out) : vocab_size_(vocab_size), out_(*out) {}

  absl::Status Read(const nlohmann::json& json, const std::string& path) {
    JsonFields fields(json, path);
    const std::string type = fields.RequiredString("type");
    GF_RETURN_IF_ERROR(fields.status());
    if (type == "Sequence") {
      int index = 0;
      for (const nlohmann::json& part : fields.RequiredArray("processors")) {
        GF_RETURN_IF_ERROR(Read(part, absl::StrCat(path, "[", index++, "]")));
      }
    } else if (type == "TemplateProcessing") {
      GF_RETURN_IF_ERROR(ReadTemplate(&fields));
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      GF_RETURN_IF_ERROR(Wrap({ReadPair("cls", &fields)}, {ReadPair("sep", &fields)}, path));
    } else if (type != "ByteLevel") {  // which only moves offsets
      fields.RefuseFeature(absl::StrCat("post-processor ", PrintableName(type)));
    }
    return fields.status();
  }

 private:
  using Ids = std::vector<int32_t>;

  // Later processors wrap what earlier ones made.
  absl::Status Wrap(const Ids& before, const Ids& after, const std::string& path) {
    out_.prefix_ids.insert(out_.prefix_ids.begin(), before.begin(), before.end());
    out_.suffix_ids.insert(out_.suffix_ids.end(), after.begin(), after.end());
    if (out_.prefix_ids.size() + out_.suffix_ids.size() <= kMaxIds) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kMaxIds, " ids"));
  }

  // ["<s>", 0]
  int32_t ReadPair(const char* key, JsonFields* fields) const {
    const nlohmann::json& pair = fields->RequiredArray(key);
    if (pair.size() != 2 || !pair[1].is_number_unsigned() ||
        pair[1].get<uint64_t>() >= static_cast<uint64_t>(vocab_size_)) {
      fields->Refuse(key, "not a token and its id");
      return 0;
    }
    return pair[1].get<int32_t>();
  }

  absl::Status ReadTemplate(JsonFields* fields) {
    Ids before, after;
    int n_texts = 0;
    const nlohmann::json& parts = fields->RequiredArray("single");
    for (size_t i = 0; i < parts.size(); ++i) {
      JsonFields part(parts[i], absl::StrCat(fields->path(), ".single[", i, "]"));
      if (part.Find("Sequence") != nullptr) {
        ++n_texts;
        continue;
      }
      JsonFields token(part.RequiredObject("SpecialToken"), part.PathOf("SpecialToken"));
      GF_RETURN_IF_ERROR(part.status());
      AppendIds(token.RequiredString("id"), fields, n_texts == 0 ? &before : &after);
      GF_RETURN_IF_ERROR(token.status());
      GF_RETURN_IF_ERROR(fields->status());
    }
    if (n_texts != 1) fields->Refuse("single", "the text must stand in it once");
    GF_RETURN_IF_ERROR(fields->status());
    return Wrap(before, after, fields->path());
  }

  void AppendIds(const std::string& name, JsonFields* fields, Ids* out) const {
    JsonFields tokens(fields->RequiredObject("special_tokens"), fields->PathOf("special_tokens"));
    JsonFields token(tokens.RequiredObject(name.c_str()), tokens.PathOf(PrintableName(name)));
    const nlohmann::json& ids = token.RequiredArray("ids");
    for (const nlohmann::json& id : ids) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size_)) {
        return fields->Refuse(absl::StrCat("special_tokens.", PrintableName(name), ".ids"),
                              absl::StrCat("not ids below ", vocab_size_));
      }
      out->push_back(id.get<int32_t>());
    }
    if (!tokens.status().ok() || !token.status().ok()) {
      fields->Refuse(absl::StrCat("special_tokens.", PrintableName(name)),
                     "missing or without ids");
    }
  }

  const int vocab_size_;
  PostProcessor& out_;
};

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const nlohmann::json& json, int vocab_size) {
  PostProcessor processor;
  if (!json.is_null()) {
    GF_RETURN_IF_ERROR(Reader(vocab_size, &processor).Read(json, "post_processor"));
  }
  return processor;
}

}  // namespace gatefold
