#include "gatefold/tokenizer/tokenizer_config.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/json_fields.h"

namespace gatefold {
namespace {

// A name is a string, or an object that describes the token.
std::string ReadName(const char* key, JsonFields* fields) {
  const nlohmann::json* value = fields->Find(key);
  if (value == nullptr || !value->is_object()) return fields->StringOr(key, "");
  JsonFields token(*value, fields->PathOf(key));
  return token.StringOr("content", "");
}

}  // namespace

AddedToken ReadAddedToken(JsonFields* fields) {
  AddedToken token;
  token.content = fields->RequiredString("content");
  token.single_word = fields->BoolOr("single_word", false);
  token.lstrip = fields->BoolOr("lstrip", false);
  token.rstrip = fields->BoolOr("rstrip", false);
  token.special = fields->BoolOr("special", false);
  token.normalized = fields->BoolOr("normalized", !token.special);
  return token;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(absl::string_view json) {
  GF_ASSIGN_OR_RETURN(const nlohmann::json root, ParseStrictJson(json, "tokenizer_config.json"));
  JsonFields fields(root, "tokenizer_config.json");
  TokenizerConfig config;
  config.bos_token = ReadName("bos_token", &fields);
  config.eos_token = ReadName("eos_token", &fields);
  if (fields.Find("add_bos_token")) config.add_bos_token = fields.BoolOr("add_bos_token", false);
  if (fields.Find("add_eos_token")) config.add_eos_token = fields.BoolOr("add_eos_token", false);
  if (fields.Find("added_tokens_decoder") != nullptr) {
    for (const auto& [id, value] : fields.RequiredObject("added_tokens_decoder").items()) {
      JsonFields token_fields(value, absl::StrCat("added_tokens_decoder.", PrintableName(id)));
      AddedToken token = ReadAddedToken(&token_fields);
      if (!absl::SimpleAtoi(id, &token.id) || token.id < 0) {
        token_fields.Refuse("id", "the key is not an id");
      }
      GF_RETURN_IF_ERROR(token_fields.status());
      config.added_tokens.push_back(std::move(token));
    }
  }
  GF_RETURN_IF_ERROR(fields.status());
  return config;
}

}  // namespace gatefold
