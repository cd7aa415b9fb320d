#pragma once

// Small tokenizers made by hand, for tests.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/byte_chars.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "nlohmann/json.hpp"

namespace gatefold::testing {

using Merges = std::vector<std::pair<std::string, std::string>>;

// GPT-2's kind: ids 0..255 are the bytes, then one for each merge, then <|end|> (special).
inline nlohmann::json ByteLevelJson(const Merges& merges) {
  nlohmann::json vocab, merge_list = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte) {
    std::string spelling;
    AppendUtf8(CharOfByte(static_cast<uint8_t>(byte)), &spelling);
    vocab[spelling] = byte;
  }
  int next = 256;
  for (const auto& [left, right] : merges) {
    vocab[left + right] = next++;
    merge_list.push_back(absl::StrCat(left, " ", right));
  }
  return {{"added_tokens", {{{"id", next}, {"content", "<|end|>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merge_list}}}};
}

// Llama-2's kind: <unk>, <s>, </s>, the 256 bytes from id 3 on, then `pieces` from 259 on.
inline nlohmann::json SpmJson(const std::vector<std::string>& pieces, const Merges& merges) {
  nlohmann::json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}}, merge_list;
  for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = 3 + byte;
  int next = 259;
  for (const std::string& piece : pieces) vocab[piece] = next++;
  merge_list = nlohmann::json::array();
  for (const auto& [left, right] : merges) merge_list.push_back({left, right});
  nlohmann::json added = nlohmann::json::array();
  for (const auto& [content, id] : {std::pair("<unk>", 0), {"<s>", 1}, {"</s>", 2}}) {
    added.push_back({{"id", id}, {"content", content}, {"special", true}, {"normalized", false}});
  }
  return nlohmann::json::parse(R"({
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}})")
      .patch(nlohmann::json::array({{{"op", "add"}, {"path", "/added_tokens"}, {"value", added}},
                                    {{"op", "add"},
                                     {"path", "/model"},
                                     {"value",
                                      {{"type", "BPE"},
                                       {"unk_token", "<unk>"},
                                       {"fuse_unk", true},
                                       {"byte_fallback", true},
                                       {"vocab", vocab},
                                       {"merges", merge_list}}}}}));
}

// Letters a few words are made of, so that "▁hello", "▁he", "ll" and "▁▁" are tokens.
inline nlohmann::json HelloSpmJson() {
  return SpmJson({"▁", "h", "e", "l", "o", "▁h", "▁he", "ll", "▁hell", "▁hello", "▁▁"},
                 {{"▁", "h"}, {"▁h", "e"}, {"l", "l"}, {"▁he", "ll"}, {"▁hell", "o"}, {"▁", "▁"}});
}

inline absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(const nlohmann::json& json) {
  return Tokenizer::FromJson(json.dump());
}

// The ids, without those the post-processor adds; empty on errors.
inline std::vector<int32_t> Ids(const Tokenizer& tokenizer, absl::string_view text) {
  const auto ids = tokenizer.Encode(text, {/*add_special_tokens=*/false});
  return ids.ok() ? *ids : std::vector<int32_t>{};
}

}  // namespace gatefold::testing
