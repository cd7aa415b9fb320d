#include "cli/conversation.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace gatefold::cli {

Conversation::Conversation(std::string system, bool has_chat_template)
    : system_(std::move(system)), has_chat_template_(has_chat_template) {
  Reset();
}

void Conversation::Reset() {
  turns_.clear();
  if (!system_.empty()) Add("system", system_);
}

void Conversation::DropLast() { turns_.pop_back(); }

inference::v1::Prompt Conversation::ToPrompt() const {
  inference::v1::Prompt prompt;
  for (const Turn& turn : turns_) {
    if (has_chat_template_) {
      inference::v1::Message* message = prompt.mutable_conversation()->add_messages();
      message->set_role(turn.role);
      message->set_content(turn.content);
    } else {
      absl::StrAppend(prompt.mutable_text(), turn.content, turn.role == "assistant" ? "" : "\n");
    }
  }
  return prompt;
}

}  // namespace gatefold::cli
