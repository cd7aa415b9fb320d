#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold::cli {

// What has been said, as the next request's prompt. A model without a chat template gets the bare
// text of all turns, one after another, and goes on from there.
class Conversation {
 public:
  Conversation(std::string system, bool has_chat_template);

  void AddUser(absl::string_view text) { Add("user", text); }
  void AddAssistant(absl::string_view text) { Add("assistant", text); }
  // Forgets all turns, but not the system message.
  void Reset();
  // Takes the last turn back: a question that got no answer.
  void DropLast();

  inference::v1::Prompt ToPrompt() const;

 private:
  struct Turn {
    std::string role, content;
  };
  void Add(const char* role, absl::string_view text) {
    turns_.push_back({role, std::string(text)});
  }

  const std::string system_;  // empty: none
  const bool has_chat_template_;
  std::vector<Turn> turns_;
};

}  // namespace gatefold::cli
