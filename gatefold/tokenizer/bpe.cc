#include "gatefold/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"

namespace gatefold {
namespace {

constexpr absl::string_view kMetaspace = "\xE2\x96\x81";
// Up to here scanning all pairs for the best one beats keeping them in a heap.
constexpr size_t kFewSymbols = 48;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// Where a run of metaspaces begins at `from` or later, other than at 0; text.size() if nowhere.
size_t NextWordStart(absl::string_view text, size_t from) {
  for (size_t i = text.find(kMetaspace, from); i != absl::string_view::npos;
       i = text.find(kMetaspace, i + kMetaspace.size())) {
    const bool continues = i >= kMetaspace.size() &&
                           text.substr(i - kMetaspace.size(), kMetaspace.size()) == kMetaspace;
    if (i > 0 && !continues) return i;
  }
  return text.size();
}

}  // namespace

Bpe::Bpe(BpeTable table) : table_(std::move(table)) {
  const std::vector<MergeRule> merges = std::exchange(table_.merges, {});
  merges_.reserve(merges.size());
  for (const MergeRule& rule : merges) {
    merges_.insert_or_assign(PairKey(rule.left, rule.right), Merge{rule.rank, rule.id});
  }
  byte_symbols_.fill(kNoToken);
  for (const auto& [text, id] : table_.ids) {
    max_token_bytes_ = std::max(max_token_bytes_, text.size());
    if (table_.byte_level) {
      if (text.size() == 1) byte_symbols_[static_cast<uint8_t>(text[0])] = id;
      continue;
    }
    size_t end = 0;
    const char32_t c = NextCodePoint(text, &end);
    if (end == text.size()) char_symbols_[c] = id;
  }
  for (const auto& [c, id] : table_.parts) char_symbols_[c] = id;
  words_start_at_metaspace_ = !table_.byte_level && NoTokenCrossesMetaspace(merges);
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(table_.texts.size());
}

// Then a text may be cut before each run of metaspaces without changing its tokens, and a text
// without pre-tokeniser becomes many short words rather than a long one.
bool Bpe::NoTokenCrossesMetaspace(const std::vector<MergeRule>& merges) const {
  if (table_.ids.find(kMetaspace) == table_.ids.end()) return false;
  return std::none_of(merges.begin(), merges.end(), [this](const MergeRule& rule) {
    const std::string& text = table_.texts[rule.id];
    return NextWordStart(text, 0) != text.size();
  });
}

int32_t Bpe::Find(absl::string_view text) const {
  if (text.size() > max_token_bytes_) return kNoToken;
  const auto it = table_.ids.find(text);
  return it == table_.ids.end() ? kNoToken : it->second;
}

Bpe::Merge Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? Merge{kNoRank, kNoToken} : it->second;
}

void Bpe::Encode(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  GF_CHECK(piece.size() < (size_t{1} << 30));
  if (table_.ignore_merges) {
    const int32_t whole = Find(piece);
    if (whole != kNoToken) return ids->push_back(whole);
  }
  if (!words_start_at_metaspace_) return EncodeWord(piece, scratch, ids);
  for (size_t begin = 0; begin < piece.size();) {
    const size_t end = NextWordStart(piece, begin + 1);
    EncodeWord(piece.substr(begin, end - begin), scratch, ids);
    begin = end;
  }
}

void Bpe::EncodeWord(absl::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const {
  const int32_t whole = Find(word);
  // Relaxed: the flag says what anyone would find out.
  if (whole != kNoToken && whole_[whole].load(std::memory_order_relaxed) == kYes) {
    return ids->push_back(whole);
  }
  ToSymbols(word, &scratch->symbols_);
  if (scratch->symbols_.size() <= kFewSymbols) {
    MergeFew(scratch);
  } else {
    MergeMany(scratch);
  }
  if (whole != kNoToken) {
    const bool made = scratch->symbols_.size() == 1 && scratch->symbols_[0].id == whole;
    whole_[whole].store(made ? kYes : kNo, std::memory_order_relaxed);
  }
  Emit(word, scratch->symbols_, ids);
}

void Bpe::ToSymbols(absl::string_view word, std::vector<Symbol>* symbols) const {
  symbols->clear();
  for (size_t i = 0; i < word.size();) {
    const size_t begin = i;
    int32_t id;
    if (table_.byte_level) {
      id = byte_symbols_[static_cast<uint8_t>(word[i++])];
    } else {
      const auto it = char_symbols_.find(NextCodePoint(word, &i));
      id = it == char_symbols_.end() ? kNoToken : it->second;
    }
    if (id == kNoToken && !table_.unknown_last) {
      AddUnknown(word.substr(begin, i - begin), static_cast<uint32_t>(begin), symbols);
    } else {
      symbols->push_back({id, static_cast<uint32_t>(begin)});
    }
  }
}

bool Bpe::HasByteIds(absl::string_view character) const {
  if (table_.byte_ids.empty()) return false;
  return std::all_of(character.begin(), character.end(), [this](char c) {
    return table_.byte_ids[static_cast<uint8_t>(c)] != kNoToken;
  });
}

void Bpe::AddUnknown(absl::string_view character, uint32_t begin,
                     std::vector<Symbol>* symbols) const {
  if (HasByteIds(character)) {
    for (const char c : character) {
      symbols->push_back({table_.byte_ids[static_cast<uint8_t>(c)], begin});
    }
    return;
  }
  if (table_.unk_id == kNoToken) return;
  const bool fuses = table_.fuse_unk && !symbols->empty() && symbols->back().id == table_.unk_id;
  if (!fuses) symbols->push_back({table_.unk_id, begin});
}

void Bpe::MergeFew(Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols_;
  std::vector<Merge>& pairs = scratch->pairs_;
  if (symbols.size() < 2) return;
  pairs.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    pairs.push_back(FindMerge(symbols[i].id, symbols[i + 1].id));
  }
  while (!pairs.empty()) {
    const auto best = std::min_element(pairs.begin(), pairs.end(),
                                       [](Merge a, Merge b) { return a.rank < b.rank; });
    if (best->rank == kNoRank) return;
    const size_t i = best - pairs.begin();
    symbols[i].id = best->id;
    symbols.erase(symbols.begin() + i + 1);
    pairs.erase(best);
    if (i > 0) pairs[i - 1] = FindMerge(symbols[i - 1].id, symbols[i].id);
    if (i < pairs.size()) pairs[i] = FindMerge(symbols[i].id, symbols[i + 1].id);
  }
}

void Bpe::MergeMany(Scratch* scratch) const {
  std::vector<Symbol>& symbols = scratch->symbols_;
  auto& links = scratch->links_;
  auto& heap = scratch->heap_;
  const auto n = static_cast<int32_t>(symbols.size());
  links.resize(symbols.size());
  heap.clear();
  for (int32_t i = 0; i < n; ++i) {
    const bool last = i + 1 == n;
    links[i] = {i - 1, last ? -1 : i + 1,
                last ? Merge{kNoRank, kNoToken} : FindMerge(symbols[i].id, symbols[i + 1].id)};
    if (links[i].merge.rank != kNoRank) heap.push_back(PairKey(links[i].merge.rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto update_pair = [&](int32_t i) {
    if (i < 0) return;
    const int32_t next = links[i].next;
    links[i].merge =
        next < 0 ? Merge{kNoRank, kNoToken} : FindMerge(symbols[i].id, symbols[next].id);
    if (links[i].merge.rank == kNoRank) return;
    heap.push_back(PairKey(links[i].merge.rank, i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint64_t best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto i = static_cast<int32_t>(best & UINT32_MAX);
    // Pairs that one of its sides has left since are still in the heap.
    if (links[i].merge.rank != static_cast<int32_t>(best >> 32)) continue;
    const int32_t gone = links[i].next;
    symbols[i].id = links[i].merge.id;
    links[i].next = links[gone].next;
    if (links[gone].next >= 0) links[links[gone].next].previous = i;
    links[gone].merge.rank = kNoRank;
    update_pair(links[i].previous);
    update_pair(i);
  }
  int32_t kept = 0;
  for (int32_t i = 0; i >= 0; i = links[i].next) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

void Bpe::Emit(absl::string_view word, const std::vector<Symbol>& symbols,
               std::vector<int32_t>* ids) const {
  if (!table_.unknown_last) {
    for (const Symbol& symbol : symbols) ids->push_back(symbol.id);
    return;
  }
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (symbols[i].id >= 0 && symbols[i].id < table_.texts.size()) {
      ids->push_back(symbols[i].id);
      continue;
    }
    const size_t end = i + 1 < symbols.size() ? symbols[i + 1].begin : word.size();
    const absl::string_view character = word.substr(symbols[i].begin, end - symbols[i].begin);
    if (HasByteIds(character)) {
      for (const char c : character) ids->push_back(table_.byte_ids[static_cast<uint8_t>(c)]);
    } else if (table_.unk_id != kNoToken &&
               !(table_.fuse_unk && !ids->empty() && ids->back() == table_.unk_id)) {
      ids->push_back(table_.unk_id);
    }
  }
}

}  // namespace gatefold
