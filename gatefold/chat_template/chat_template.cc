#include "gatefold/chat_template/chat_template.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/chat_template/jinja_interpreter.h"
#include "gatefold/chat_template/jinja_parser.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/json_fields.h"
#include "gatefold/tokenizer/tokenizer_config.h"

namespace gatefold {
namespace {

constexpr size_t kMaxSourceBytes = size_t{1} << 20;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr char kWhat[] = "chat template";

jinja::Value MessagesValue(const std::vector<ChatTurn>& turns) {
  jinja::List messages;
  for (const ChatTurn& turn : turns) {
    jinja::Dict message;
    message.items.emplace_back("role", jinja::Value::String(turn.role));
    message.items.emplace_back("content", jinja::Value::String(turn.content));
    messages.push_back(jinja::Value::FromDict(std::move(message)));
  }
  return jinja::Value::FromList(std::move(messages));
}

absl::Status CheckText(absl::string_view text, absl::string_view what) {
  const size_t offset = FindInvalidUtf8(text);
  if (offset == kValidUtf8) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is not UTF-8 at byte ", offset));
}

absl::StatusOr<std::string> TemplateNamedDefault(const nlohmann::json& list) {
  for (size_t i = 0; i < list.size(); ++i) {
    JsonFields fields(list[i], absl::StrCat("chat_template[", i, "]"));
    const std::string name = fields.RequiredString("name");
    const std::string source = fields.RequiredString("template");
    GF_RETURN_IF_ERROR(fields.status());
    if (name == "default") return source;
  }
  return absl::NotFoundError("chat_template: none of them is named \"default\"");
}

absl::StatusOr<std::string> TemplateOf(const nlohmann::json& config) {
  JsonFields fields(config, "tokenizer_config.json");
  const nlohmann::json* source = fields.Find("chat_template");
  if (source == nullptr) {
    return absl::NotFoundError("tokenizer_config.json has no chat_template");
  }
  if (source->is_array()) return TemplateNamedDefault(*source);
  std::string text = fields.RequiredString("chat_template");
  GF_RETURN_IF_ERROR(fields.status());
  return text;
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const jinja::Template> parsed)
    : parsed_(std::move(parsed)) {}

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kWhat, ": ", source.size(), " bytes; at most ", kMaxSourceBytes));
  }
  GF_RETURN_IF_ERROR(CheckText(source, kWhat));
  auto parsed = jinja::ParseTemplate(source);
  if (!parsed.ok()) return Annotate(parsed.status(), kWhat);
  return ChatTemplate(std::make_shared<const jinja::Template>(*std::move(parsed)));
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatTemplateInputs& inputs) const {
  using jinja::Value;
  for (size_t i = 0; i < inputs.messages.size(); ++i) {
    GF_RETURN_IF_ERROR(CheckText(inputs.messages[i].role, absl::StrCat("messages[", i, "].role")));
    GF_RETURN_IF_ERROR(
        CheckText(inputs.messages[i].content, absl::StrCat("messages[", i, "].content")));
  }
  jinja::Interpreter interpreter(inputs.now);
  interpreter.SetGlobal("messages", MessagesValue(inputs.messages));
  interpreter.SetGlobal("add_generation_prompt", Value::Bool(inputs.add_generation_prompt));
  interpreter.SetGlobal("tools", Value::None());
  interpreter.SetGlobal("documents", Value::None());
  const std::string& bos = inputs.bos_token.empty() ? bos_token_ : inputs.bos_token;
  const std::string& eos = inputs.eos_token.empty() ? eos_token_ : inputs.eos_token;
  if (!bos.empty()) interpreter.SetGlobal("bos_token", Value::String(bos));
  if (!eos.empty()) interpreter.SetGlobal("eos_token", Value::String(eos));
  if (!inputs.variables.is_null()) {
    if (!inputs.variables.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(kWhat, ": variables are not an object"));
    }
    for (const auto& [name, value] : inputs.variables.items()) {
      std::optional<Value> converted = Value::FromJson(value);
      if (!converted.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(kWhat, ": variables.", PrintableName(name),
                                                       " is nested too deeply or is not UTF-8"));
      }
      interpreter.SetGlobal(name, *std::move(converted));
    }
  }
  auto text = interpreter.Run(*parsed_);
  if (!text.ok()) return Annotate(text.status(), kWhat);
  return text;
}

absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_dir) {
  auto config_text = ReadSmallFile(model_dir + "/tokenizer_config.json", kMaxConfigBytes);
  if (!config_text.ok() && !absl::IsNotFound(config_text.status())) return config_text.status();
  absl::StatusOr<std::string> source =
      ReadSmallFile(model_dir + "/chat_template.jinja", kMaxSourceBytes);
  if (absl::IsNotFound(source.status()) && config_text.ok()) {
    GF_ASSIGN_OR_RETURN(const nlohmann::json config,
                        ParseStrictJson(*config_text, "tokenizer_config.json"));
    source = TemplateOf(config);
  }
  GF_RETURN_IF_ERROR(source.status());
  GF_ASSIGN_OR_RETURN(ChatTemplate chat_template, ChatTemplate::Parse(*source));
  if (config_text.ok()) {
    GF_ASSIGN_OR_RETURN(const TokenizerConfig config, ReadTokenizerConfig(*config_text));
    chat_template.set_bos_token(config.bos_token);
    chat_template.set_eos_token(config.eos_token);
  }
  return chat_template;
}

}  // namespace gatefold
