#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace gatefold {

namespace jinja {
struct Template;
}  // namespace jinja

struct ChatTurn {
  std::string role;
  std::string content;
};

struct ChatTemplateInputs {
  std::vector<ChatTurn> messages;
  bool add_generation_prompt = true;  // ends where the model's answer begins
  std::string bos_token, eos_token;   // by spelling; "" leaves the model folder's own
  // More variables, as "enable_thinking" or "tools"; an object, or null. Its values replace those
  // above, so "messages" may be a list of any form.
  nlohmann::ordered_json variables;
  absl::Time now = absl::InfinitePast();  // for strftime_now; InfinitePast reads the clock
};

// Writes a conversation as the text that a model was trained on: the templates of Hugging Face
// models, in the subset of Jinja that they use, with its limits on steps, memory and output. What
// is outside of it is an error with its name and line.
// Threads: safe.
class ChatTemplate {
 public:
  // InvalidArgument for what is no Jinja, Unimplemented for what is not supported.
  static absl::StatusOr<ChatTemplate> Parse(absl::string_view source);

  // InvalidArgument with what the template says against the messages (raise_exception), and for
  // operations that its values do not allow; ResourceExhausted past a limit.
  absl::StatusOr<std::string> Render(const ChatTemplateInputs& inputs) const;

  // Of the model folder; used where the inputs name none.
  void set_bos_token(std::string token) { bos_token_ = std::move(token); }
  void set_eos_token(std::string token) { eos_token_ = std::move(token); }

 private:
  explicit ChatTemplate(std::shared_ptr<const jinja::Template> parsed);

  std::shared_ptr<const jinja::Template> parsed_;
  std::string bos_token_, eos_token_;
};

// Reads chat_template.jinja if `model_dir` has one, else "chat_template" of tokenizer_config.json:
// a string, or a list of named ones of which "default" is taken. NotFound if there is none.
absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_dir);

}  // namespace gatefold
