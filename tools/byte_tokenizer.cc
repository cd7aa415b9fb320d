#include "tools/byte_tokenizer.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace gatefold {
namespace {

using nlohmann::ordered_json;

constexpr const char* kSpecials[] = {"<pad>", "<s>", "</s>"};

// Frequent pairs of English text; U+0120 stands for the space. Parts are bytes or earlier merges.
struct Merge {
  const char* left;
  const char* right;
};
constexpr Merge kMerges[] = {
    {"Ġ", "t"},   {"Ġ", "a"},  {"h", "e"},  {"i", "n"},  {"r", "e"},  {"o", "n"},
    {"Ġt", "he"}, {"e", "r"},  {"Ġ", "s"},  {"a", "t"},  {"e", "n"},  {"Ġ", "o"},
    {"Ġ", "w"},   {"o", "r"},  {"n", "d"},  {"Ġ", "c"},  {"i", "s"},  {"e", "s"},
    {"Ġa", "nd"}, {"in", "g"}, {"e", "d"},  {"i", "t"},  {"a", "l"},  {"Ġt", "o"},
    {"a", "n"},   {"o", "u"},  {"Ġo", "f"}, {"Ġ", "in"}, {"Ġ", "is"},
};

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

bool Printable(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

// The character by which byte-level vocabularies spell each byte: printable ones themselves, the
// others, in order, from U+0100 on.
std::string ByteCharacter(int byte) {
  if (Printable(byte)) return Utf8(byte);
  int rank = 0;
  for (int other = 0; other < byte; ++other) rank += Printable(other) ? 0 : 1;
  return Utf8(0x100 + rank);
}

ordered_json AddedTokens() {
  ordered_json tokens = ordered_json::array();
  for (size_t id = 0; id < std::size(kSpecials); ++id) {
    tokens.push_back({{"id", id},
                      {"content", kSpecials[id]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", true}});
  }
  return tokens;
}

ordered_json BosTemplate() {
  const ordered_json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const ordered_json first = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const ordered_json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  return {{"type", "TemplateProcessing"},
          {"single", {bos, first}},
          {"pair", {bos, first, second}},
          {"special_tokens",
           {{"<s>", {{"id", "<s>"}, {"ids", {kByteTokenizerBos}}, {"tokens", {"<s>"}}}}}}};
}

}  // namespace

absl::StatusOr<std::string> ByteTokenizerJson(int vocab_size) {
  const int smallest = static_cast<int>(std::size(kSpecials)) + 256;
  if (vocab_size < smallest) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", vocab_size,
                                                   " has no room for ", smallest,
                                                   " special tokens and bytes"));
  }
  ordered_json vocab = ordered_json::object();
  for (const char* special : kSpecials) vocab[special] = vocab.size();
  for (int byte = 0; byte < 256; ++byte) vocab[ByteCharacter(byte)] = vocab.size();
  ordered_json merges = ordered_json::array();
  for (const Merge& merge : kMerges) {
    if (vocab.size() == static_cast<size_t>(vocab_size)) break;
    vocab[absl::StrCat(merge.left, merge.right)] = vocab.size();
    merges.push_back(absl::StrCat(merge.left, " ", merge.right));
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", true}};
  const ordered_json tokenizer = {{"version", "1.0"},
                                  {"truncation", nullptr},
                                  {"padding", nullptr},
                                  {"added_tokens", AddedTokens()},
                                  {"normalizer", nullptr},
                                  {"pre_tokenizer", byte_level},
                                  {"post_processor", BosTemplate()},
                                  {"decoder", byte_level},
                                  {"model",
                                   {{"type", "BPE"},
                                    {"dropout", nullptr},
                                    {"unk_token", nullptr},
                                    {"continuing_subword_prefix", nullptr},
                                    {"end_of_word_suffix", nullptr},
                                    {"fuse_unk", false},
                                    {"byte_fallback", false},
                                    {"ignore_merges", false},
                                    {"vocab", vocab},
                                    {"merges", merges}}}};
  return tokenizer.dump(1);
}

std::string ByteTokenizerConfigJson(int max_positions) {
  const ordered_json config = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"add_bos_token", true},
      {"bos_token", kSpecials[kByteTokenizerBos]},
      {"eos_token", kSpecials[kByteTokenizerEos]},
      {"pad_token", kSpecials[kByteTokenizerPad]},
      {"clean_up_tokenization_spaces", false},
      {"model_max_length", max_positions},
      {"chat_template",
       "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + "
       "message['content'] + '\\n' }}{% endfor %}"
       "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"}};
  return config.dump(1);
}

}  // namespace gatefold
