#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/bpe_table.h"

namespace gatefold {

// Byte-pair encoding of one piece of text at a time, in O(n log n).
// Threads: safe, each with a scratch of its own.
class Bpe {
 public:
  class Scratch;

  explicit Bpe(BpeTable table);

  // Appends the ids of `piece`: UTF-8, or any bytes for a byte-level table; under 1 GiB.
  void Encode(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  // kNoToken if no token that the model can produce is spelled so.
  int32_t Find(absl::string_view text) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;      // kNoToken: an unknown character
    uint32_t begin;  // byte in the piece
  };
  static constexpr int32_t kNoRank = INT32_MAX;

  Merge FindMerge(int32_t left, int32_t right) const;
  void EncodeWord(absl::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;
  void ToSymbols(absl::string_view word, std::vector<Symbol>* symbols) const;
  bool HasByteIds(absl::string_view character) const;
  void AddUnknown(absl::string_view character, uint32_t begin, std::vector<Symbol>* symbols) const;
  void MergeFew(Scratch* scratch) const;
  void MergeMany(Scratch* scratch) const;
  void Emit(absl::string_view word, const std::vector<Symbol>& symbols,
            std::vector<int32_t>* ids) const;
  bool NoTokenCrossesMetaspace(const std::vector<MergeRule>& merges) const;

  BpeTable table_;  // its merges moved to merges_
  size_t max_token_bytes_ = 0;
  bool words_start_at_metaspace_ = false;
  std::array<int32_t, 256> byte_symbols_;
  absl::flat_hash_map<char32_t, int32_t> char_symbols_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // left << 32 | right
  // By id, whether the model makes the token out of its own text: found out when first met, and
  // from then on most words take one look-up.
  enum Whole : uint8_t { kNotTried, kYes, kNo };
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

// Buffers of Bpe::Encode, for one thread at a time.
class Bpe::Scratch {
  friend class Bpe;
  struct Link {
    int32_t previous, next;  // index of a symbol; -1: none
    Merge merge;             // with the next symbol
  };
  std::vector<Symbol> symbols_;
  std::vector<Merge> pairs_;    // of neighbours, for short pieces
  std::vector<Link> links_;     // for long ones
  std::vector<uint64_t> heap_;  // rank << 32 | index of the left symbol
};

}  // namespace gatefold
