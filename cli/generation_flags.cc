#include "cli/generation_flags.h"

namespace gatefold::cli {

void GenerationFlags::AddTo(FlagSet* flags) {
  flags->Section("How tokens are drawn (default: as the model's generation_config.json says):");
  flags->Add("max-tokens", "N", "stop after N tokens", &max_tokens);
  flags->Add("min-tokens", "N", "do not stop before N tokens", &min_tokens);
  flags->Add("temperature", "X", "0 takes the most likely token", &temperature);
  flags->Add("top-k", "N", "draw from the N most likely tokens; 0: from all", &top_k);
  flags->Add("top-p", "X", "draw from the most likely tokens that make up X together", &top_p);
  flags->Add("min-p", "X", "leave out tokens less likely than X times the most likely", &min_p);
  flags->Add("repetition-penalty", "X", "divides the logits of tokens that were there; 1: off",
             &repetition_penalty);
  flags->Add("presence-penalty", "X", "subtracted from the logits of tokens generated before",
             &presence_penalty);
  flags->Add("frequency-penalty", "X", "the same, times how often they were", &frequency_penalty);
  flags->Add("seed", "N", "the same seed gives the same tokens", &seed);
  flags->Section("When it ends:");
  flags->Add("stop", "TEXT", "end before this text; may be given several times", &stop);
  flags->Add("stop-token-ids", "IDS", "end at one of these tokens, as 2,7", &stop_token_ids);
  flags->AddSwitch("ignore-eos", "go on past the end-of-sequence token", &ignore_eos);
}

inference::v1::GenerationConfig GenerationFlags::ToConfig() const {
  inference::v1::GenerationConfig config;
  if (max_tokens) config.set_max_output_tokens(*max_tokens);
  if (min_tokens) config.set_min_output_tokens(*min_tokens);
  if (temperature) config.set_temperature(*temperature);
  if (top_k) config.set_top_k(*top_k);
  if (top_p) config.set_top_p(*top_p);
  if (min_p) config.set_min_p(*min_p);
  if (repetition_penalty) config.set_repetition_penalty(*repetition_penalty);
  if (presence_penalty) config.set_presence_penalty(*presence_penalty);
  if (frequency_penalty) config.set_frequency_penalty(*frequency_penalty);
  if (seed) config.set_seed(*seed);
  for (const std::string& text : stop) config.add_stop_sequences(text);
  for (const int32_t id : stop_token_ids) config.add_stop_token_ids(id);
  if (ignore_eos) config.set_ignore_eos(true);
  return config;
}

}  // namespace gatefold::cli
