#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gatefold/tokenizer/added_tokens.h"
#include "gatefold/tokenizer/bpe.h"
#include "gatefold/tokenizer/decode_table.h"
#include "gatefold/tokenizer/normalizer.h"
#include "gatefold/tokenizer/pre_tokenizer.h"
#include "gatefold/tokenizer/tokenizer_config.h"

namespace gatefold {

struct EncodeOptions {
  // Adds what the model expects around a text, such as a beginning-of-sequence id. Off for text
  // from a chat template, which has it already.
  bool add_special_tokens = true;
  // Special tokens spelled out in the text become their ids. Off for text of users, who could
  // otherwise write control tokens.
  bool parse_special_tokens = true;
};

// Whose pattern and special tokens a tiktoken file goes with: it holds neither.
enum class TiktokenKind { kLlama3, kQwen };

// Text to ids and back, with the ids of the reference implementation.
// Threads: safe.
class Tokenizer {
 public:
  // Reads tokenizer.json if `model_dir` has one, else tokenizer.model (SentencePiece BPE, or
  // tiktoken ranks with Llama-3's pattern), else qwen.tiktoken; and tokenizer_config.json, where
  // there is one, for the names of special tokens.
  // NotFound, InvalidArgument with the field, Unimplemented naming what is not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);
  // A tokenizer.json with a BPE model.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json);
  // The bytes of a SentencePiece BPE model, or of a tiktoken file; see Load.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromSentencePiece(
      absl::string_view model, const TokenizerConfig& config);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromTiktoken(absl::string_view lines,
                                                                 TiktokenKind kind,
                                                                 const TokenizerConfig& config);

  // InvalidArgument with the byte offset if `text` is not UTF-8; ResourceExhausted if it is past
  // 64 MiB or a pattern of the tokenizer takes too many steps on it.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              const EncodeOptions& options = {}) const;

  // Always valid UTF-8: bytes that form no character become U+FFFD. Unknown ids add nothing.
  // As in the reference, a special token whose spelling normalisation changes is not skipped
  // (Llama-2's <s> in files where it is marked normalized).
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // One past the highest id. There may be holes.
  int vocab_size() const { return decode_.size(); }
  bool Knows(int32_t id) const { return id >= 0 && id < vocab_size() && decode_.Knows(id); }
  bool IsSpecial(int32_t id) const { return Knows(id) && is_special_[id]; }
  // What the token adds to a text, were it not the first; maybe a part of a character. "" for ids
  // that are unknown.
  std::string TokenBytes(int32_t id) const;
  // By the spelling in the tokenizer's own file, as "<s>" or "Ġthe".
  std::optional<int32_t> TokenToId(absl::string_view spelling) const;

  // As far as the tokenizer's files say.
  std::optional<int32_t> bos_id() const { return bos_id_; }
  const std::vector<int32_t>& eos_ids() const { return eos_ids_; }

  const DecodeTable& decode_table() const { return decode_; }

  // What the readers of the various files put together.
  struct Parts;
  explicit Tokenizer(Parts parts);
  // Takes the names of the sequence's first and last tokens; names without a token are ignored.
  void UseNames(const TokenizerConfig& config);

 private:
  absl::Status EncodePart(absl::string_view part, bool starts_input, bool with_special,
                          RegexScratch* regex, Bpe::Scratch* bpe, std::vector<int32_t>* ids) const;

  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const AddedTokens added_;
  const Bpe bpe_;
  const DecodeTable decode_;
  const std::vector<int32_t> prefix_ids_, suffix_ids_;   // with add_special_tokens
  const absl::flat_hash_map<std::string, int32_t> ids_;  // by spelling
  std::vector<bool> is_special_;
  std::optional<int32_t> bos_id_;
  std::vector<int32_t> eos_ids_;
};

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokens added;
  BpeTable bpe;
  DecodeTable decode;
  std::vector<int32_t> prefix_ids, suffix_ids;
  absl::flat_hash_map<std::string, int32_t> ids;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
};

}  // namespace gatefold
