#include "router-service/gateway/request_checker.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"

namespace gatefold {

using inference::v1::Conversation;
using inference::v1::GenerateTextRequest;
using inference::v1::GenerationConfig;
using inference::v1::Prompt;

namespace {

constexpr float kMaxTemperature = 100;
constexpr float kMaxRepetitionPenalty = 100;

enum class LowEnd { kClosed, kOpen };

// With as many digits as tell it from the limit that it is just beyond.
std::string Digits(float value) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof(digits), value).ptr};
}

absl::Status CheckFloat(absl::string_view field, float value, float low, float high,
                        LowEnd low_end = LowEnd::kClosed) {
  // NaN fails both comparisons.
  const bool above = low_end == LowEnd::kOpen ? value > low : value >= low;
  if (above && value <= high) return absl::OkStatus();
  return BadField(field, absl::StrCat("is ", Digits(value), ", must be a number in ",
                                      low_end == LowEnd::kOpen ? "(" : "[", low, ", ", high, "]"));
}

absl::Status CheckCount(absl::string_view field, int64_t count, int64_t limit,
                        absl::string_view unit) {
  if (count <= limit) return absl::OkStatus();
  return BadField(field, absl::StrCat("has ", count, " ", unit, ", the limit is ", limit));
}

std::string Indexed(absl::string_view field, int index) {
  return absl::StrCat(field, "[", index, "]");
}

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

}  // namespace

absl::Status RequestChecker::CheckModel(absl::string_view name) const {
  if (name.empty() || name == model_.name) return absl::OkStatus();
  return ModelNotFound(name.substr(0, 256));
}

absl::Status RequestChecker::CheckRequestId(const std::string& id) const {
  GF_RETURN_IF_ERROR(CheckCount("request_id", id.size(), limits_.max_request_id_bytes, "bytes"));
  for (size_t i = 0; i < id.size(); ++i) {
    if (id[i] <= ' ' || id[i] > '~') {
      return BadField("request_id", absl::StrCat("has the byte ", static_cast<unsigned char>(id[i]),
                                                 " at offset ", i,
                                                 ", only visible ASCII characters are allowed"));
    }
  }
  return absl::OkStatus();
}

absl::Status RequestChecker::CheckTokenId(int32_t id, const std::string& field) const {
  if (id >= 0 && id < model_.vocab_size) return absl::OkStatus();
  return BadField(field, absl::StrCat("is ", id, ", must be in [0, ", model_.vocab_size, ")"));
}

absl::Status RequestChecker::CheckTokenIds(const google::protobuf::RepeatedField<int32_t>& ids,
                                           absl::string_view field) const {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model_.vocab_size) return CheckTokenId(ids[i], Indexed(field, i));
  }
  return absl::OkStatus();
}

absl::Status RequestChecker::CheckText(const std::string& text, const std::string& field) const {
  GF_RETURN_IF_ERROR(CheckCount(field, text.size(), limits_.max_prompt_bytes, "bytes"));
  // Text that comes through protobuf was checked when it was parsed, other text was not.
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid == kValidUtf8) return absl::OkStatus();
  return BadField(field,
                  absl::StrCat("is not valid UTF-8 at byte offset ", invalid, " of ", text.size()));
}

absl::Status RequestChecker::CheckConversation(const Conversation& conversation) const {
  const std::string field = "prompt.conversation.messages";
  if (conversation.messages().empty()) return BadField(field, "is empty");
  GF_RETURN_IF_ERROR(
      CheckCount(field, conversation.messages_size(), limits_.max_messages, "messages"));
  int64_t total_bytes = 0;
  for (const auto& message : conversation.messages()) total_bytes += message.content().size();
  GF_RETURN_IF_ERROR(CheckCount(field, total_bytes, limits_.max_prompt_bytes, "bytes of content"));
  for (int i = 0; i < conversation.messages_size(); ++i) {
    const auto& message = conversation.messages(i);
    GF_RETURN_IF_ERROR(CheckText(message.content(), Indexed(field, i) + ".content"));
    // Templates copy the role between special tokens, so it must not be able to hold one.
    bool is_name = !message.role().empty() && message.role().size() <= RequestLimits::kMaxRoleBytes;
    for (const char c : message.role()) is_name = is_name && IsNameCharacter(c);
    if (!is_name) {
      return BadField(Indexed(field, i) + ".role",
                      "must be 1 to 64 letters, digits, '_' or '-', as \"user\"");
    }
  }
  return absl::OkStatus();
}

absl::Status RequestChecker::CheckPromptIds(const inference::v1::TokenIds& prompt,
                                            Excess excess) const {
  const std::string field = "prompt.token_ids.ids";
  const int length = model_.max_sequence_tokens;
  if (excess == Excess::kRefused && prompt.ids_size() > length) {
    return Annotate(ContextLengthExceeded(prompt.ids_size(), length), field);
  }
  GF_RETURN_IF_ERROR(
      CheckCount(field, prompt.ids_size(), std::max(length, limits_.max_token_ids), "ids"));
  return CheckTokenIds(prompt.ids(), field);
}

absl::Status RequestChecker::CheckPrompt(const Prompt& prompt, Emptiness emptiness,
                                         Excess excess) const {
  const bool refuse_empty = emptiness == Emptiness::kRefused;
  if (prompt.has_add_special_tokens() && prompt.kind_case() != Prompt::kText) {
    return BadField("prompt.add_special_tokens", "goes with prompt.text only");
  }
  if (prompt.has_parse_special_tokens() && prompt.kind_case() == Prompt::kTokenIds) {
    return BadField("prompt.parse_special_tokens", "does not go with prompt.token_ids");
  }
  switch (prompt.kind_case()) {
    case Prompt::kText:
      if (!abilities_.text) {
        return BadField("prompt.text", "the model has no tokenizer; send prompt.token_ids");
      }
      if (refuse_empty && prompt.text().empty()) return BadField("prompt.text", "is empty");
      return CheckText(prompt.text(), "prompt.text");
    case Prompt::kTokenIds:
      if (refuse_empty && prompt.token_ids().ids().empty()) {
        return BadField("prompt.token_ids", "is empty");
      }
      return CheckPromptIds(prompt.token_ids(), excess);
    case Prompt::kConversation:
      if (!abilities_.conversation) {
        return BadField("prompt.conversation",
                        "the model has no chat template; send prompt.text or prompt.token_ids");
      }
      return CheckConversation(prompt.conversation());
    case Prompt::KIND_NOT_SET:
      break;
  }
  return BadField("prompt", "is empty; set one of text, token_ids and conversation");
}

absl::Status RequestChecker::CheckNumbers(const GenerationConfig& c) const {
  if (c.has_temperature()) {
    GF_RETURN_IF_ERROR(CheckFloat("config.temperature", c.temperature(), 0, kMaxTemperature));
  }
  if (c.has_top_p()) {
    GF_RETURN_IF_ERROR(CheckFloat("config.top_p", c.top_p(), 0, 1, LowEnd::kOpen));
  }
  if (c.has_min_p()) GF_RETURN_IF_ERROR(CheckFloat("config.min_p", c.min_p(), 0, 1));
  if (c.has_repetition_penalty()) {
    GF_RETURN_IF_ERROR(CheckFloat("config.repetition_penalty", c.repetition_penalty(), 0,
                                  kMaxRepetitionPenalty, LowEnd::kOpen));
  }
  if (c.has_presence_penalty()) {
    GF_RETURN_IF_ERROR(CheckFloat("config.presence_penalty", c.presence_penalty(), -2, 2));
  }
  if (c.has_frequency_penalty()) {
    GF_RETURN_IF_ERROR(CheckFloat("config.frequency_penalty", c.frequency_penalty(), -2, 2));
  }
  if (c.has_candidate_count() &&
      (c.candidate_count() < 1 ||
       c.candidate_count() > static_cast<uint32_t>(limits_.max_candidates))) {
    return BadField(
        "config.candidate_count",
        absl::StrCat("is ", c.candidate_count(), ", must be in [1, ", limits_.max_candidates, "]"));
  }
  if (c.has_max_output_tokens() && c.min_output_tokens() > c.max_output_tokens()) {
    return BadField("config.min_output_tokens",
                    absl::StrCat("is ", c.min_output_tokens(), ", more than max_output_tokens, ",
                                 c.max_output_tokens()));
  }
  if (c.min_output_tokens() > static_cast<uint32_t>(model_.max_sequence_tokens)) {
    return BadField("config.min_output_tokens",
                    absl::StrCat("is ", c.min_output_tokens(), ", the model's length is ",
                                 model_.max_sequence_tokens));
  }
  GF_RETURN_IF_ERROR(
      CheckCount("config.logit_bias", c.logit_bias_size(), limits_.max_logit_bias, "entries"));
  for (const auto& [id, bias] : c.logit_bias()) {
    GF_RETURN_IF_ERROR(CheckTokenId(id, absl::StrCat("config.logit_bias[", id, "]")));
    GF_RETURN_IF_ERROR(CheckFloat(absl::StrCat("config.logit_bias[", id, "]"), bias, -100, 100));
  }
  return absl::OkStatus();
}

absl::Status RequestChecker::CheckStops(const GenerationConfig& config) const {
  const std::string field = "config.stop_sequences";
  GF_RETURN_IF_ERROR(CheckCount(field, config.stop_sequences_size(), limits_.max_stop_sequences,
                                "stop sequences"));
  if (!abilities_.text && config.stop_sequences_size() > 0) {
    return BadField(field, "the model has no tokenizer, so there is no text to stop on");
  }
  for (int i = 0; i < config.stop_sequences_size(); ++i) {
    const std::string& stop = config.stop_sequences(i);
    if (stop.empty()) return BadField(Indexed(field, i), "is empty");
    GF_RETURN_IF_ERROR(
        CheckCount(Indexed(field, i), stop.size(), limits_.max_stop_sequence_bytes, "bytes"));
    GF_RETURN_IF_ERROR(CheckText(stop, Indexed(field, i)));
  }
  GF_RETURN_IF_ERROR(CheckCount("config.stop_token_ids", config.stop_token_ids_size(),
                                limits_.max_stop_token_ids, "ids"));
  return CheckTokenIds(config.stop_token_ids(), "config.stop_token_ids");
}

absl::Status RequestChecker::CheckConfig(const GenerationConfig& config) const {
  GF_RETURN_IF_ERROR(CheckNumbers(config));
  GF_RETURN_IF_ERROR(CheckStops(config));
  if (config.has_constraint()) return FeatureUnsupported("config.constraint");
  return absl::OkStatus();
}

absl::Status RequestChecker::CheckResume(const GenerationConfig& config,
                                         const ResumeIds& resume_token_ids) const {
  if (resume_token_ids.empty()) return absl::OkStatus();
  GF_RETURN_IF_ERROR(
      CheckCount("resume_token_ids", resume_token_ids.size(), model_.max_sequence_tokens, "ids"));
  if (!config.has_seed()) {
    return BadField("config.seed",
                    "must be set with resume_token_ids, to the seed of the request"
                    " that is resumed");
  }
  if (config.has_candidate_count() && config.candidate_count() != 1) {
    return BadField("config.candidate_count", absl::StrCat("is ", config.candidate_count(),
                                                           ", must be 1 with "
                                                           "resume_token_ids"));
  }
  if (config.has_max_output_tokens() &&
      static_cast<uint32_t>(resume_token_ids.size()) > config.max_output_tokens()) {
    return BadField("resume_token_ids", absl::StrCat("has ", resume_token_ids.size(),
                                                     " ids, more than "
                                                     "config.max_output_tokens, ",
                                                     config.max_output_tokens()));
  }
  return CheckTokenIds(resume_token_ids, "resume_token_ids");
}

absl::Status RequestChecker::CheckTopLogprobs(uint32_t top_logprobs,
                                              absl::string_view field) const {
  if (top_logprobs <= static_cast<uint32_t>(limits_.max_top_logprobs)) return absl::OkStatus();
  return BadField(field,
                  absl::StrCat("is ", top_logprobs, ", the limit is ", limits_.max_top_logprobs));
}

absl::Status RequestChecker::Check(const GenerateTextRequest& request,
                                   const ResumeIds& resume_token_ids) const {
  GF_RETURN_IF_ERROR(CheckModel(request.model()));
  GF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  GF_RETURN_IF_ERROR(CheckConfig(request.config()));
  GF_RETURN_IF_ERROR(CheckResume(request.config(), resume_token_ids));
  GF_RETURN_IF_ERROR(CheckTopLogprobs(request.output().top_logprobs(), "output.top_logprobs"));
  if (!inference::v1::TruncationPolicy_IsValid(request.truncation_policy())) {
    return BadField("truncation_policy", absl::StrCat("is ", request.truncation_policy(),
                                                      ", which is not a known policy"));
  }
  if (std::abs(int64_t{request.priority()}) > limits_.max_priority) {
    return BadField("priority",
                    absl::StrCat("is ", request.priority(), ", must be in [", -limits_.max_priority,
                                 ", ", limits_.max_priority, "]"));
  }
  const bool is_cut = request.truncation_policy() == inference::v1::TRUNCATION_POLICY_KEEP_END;
  return CheckPrompt(request.prompt(), Emptiness::kRefused,
                     is_cut ? Excess::kTaken : Excess::kRefused);
}

absl::Status RequestChecker::Check(const inference::v1::ScoreTextRequest& request) const {
  GF_RETURN_IF_ERROR(CheckModel(request.model()));
  GF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  GF_RETURN_IF_ERROR(CheckTopLogprobs(request.top_logprobs(), "top_logprobs"));
  return CheckPrompt(request.prompt(), Emptiness::kRefused, Excess::kRefused);
}

absl::Status RequestChecker::Check(const inference::v1::CountTokensRequest& request) const {
  GF_RETURN_IF_ERROR(CheckModel(request.model()));
  return CheckPrompt(request.prompt(), Emptiness::kAllowed, Excess::kTaken);
}

absl::Status RequestChecker::Check(const inference::v1::TokenizeRequest& request) const {
  GF_RETURN_IF_ERROR(CheckModel(request.model()));
  if (request.prompt().has_token_ids()) {
    return BadField("prompt.token_ids",
                    "are tokens already; set prompt.text or "
                    "prompt.conversation");
  }
  return CheckPrompt(request.prompt(), Emptiness::kAllowed, Excess::kTaken);
}

absl::Status RequestChecker::Check(const inference::v1::DetokenizeRequest& request) const {
  GF_RETURN_IF_ERROR(CheckModel(request.model()));
  if (!abilities_.text) {
    return absl::FailedPreconditionError("the model has no tokenizer, so ids have no text");
  }
  GF_RETURN_IF_ERROR(
      CheckCount("token_ids", request.token_ids_size(), limits_.max_token_ids, "ids"));
  return CheckTokenIds(request.token_ids(), "token_ids");
}

}  // namespace gatefold
