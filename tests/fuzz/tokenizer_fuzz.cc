// Input: a tokenizer file, and after a NUL byte text to encode. The first byte says which kind of
// file: 's' SentencePiece (its length in the two bytes that follow instead of the NUL), 't'
// tiktoken, anything else tokenizer.json from that byte on.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/stream_decoder.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace {

using gatefold::Tokenizer;

void CheckDecoding(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  gatefold::StreamDecoder stream(&tokenizer, skip_special);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string text = stream.Push(id);
    GF_CHECK(gatefold::FindInvalidUtf8(text) == gatefold::kValidUtf8);
    streamed += text;
  }
  streamed += stream.Finish();
  const std::string text = tokenizer.Decode(ids, skip_special);
  GF_CHECK(gatefold::FindInvalidUtf8(text) == gatefold::kValidUtf8);
  // Runs of byte tokens are the one case where a stream cannot know yet what the whole will be.
  using Rule = gatefold::DecodeTable::Rule;
  if (tokenizer.decode_table().rule() != Rule::kByteFallback) GF_CHECK(streamed == text);
}

void Use(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool special : {false, true}) {
    const auto ids = tokenizer.Encode(text, {special, special});
    if (!ids.ok()) {
      GF_CHECK(!ids.status().message().empty());
      continue;
    }
    for (const int32_t id : *ids) GF_CHECK(id >= 0 && id < tokenizer.vocab_size());
    CheckDecoding(tokenizer, *ids, special);
  }
  // Ids that no text would give.
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c) * 5 - 3);
  CheckDecoding(tokenizer, ids, false);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Read(absl::string_view input, absl::string_view* text) {
  if (!input.empty() && input[0] == 's' && input.size() >= 3) {
    const size_t size = static_cast<uint8_t>(input[1]) << 8 | static_cast<uint8_t>(input[2]);
    input.remove_prefix(3);
    *text = input.size() > size ? input.substr(size) : "";
    return Tokenizer::FromSentencePiece(input.substr(0, size), {});
  }
  const size_t nul = input.find('\0');
  *text = nul == absl::string_view::npos ? "" : input.substr(nul + 1);
  const absl::string_view file = input.substr(0, nul);
  if (!file.empty() && file[0] == 't') {
    return Tokenizer::FromTiktoken(file.substr(1), gatefold::TiktokenKind::kLlama3, {});
  }
  return Tokenizer::FromJson(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view text;
  const auto tokenizer = Read(absl::string_view(reinterpret_cast<const char*>(data), size), &text);
  if (tokenizer.ok()) {
    Use(**tokenizer, text);
  } else {
    GF_CHECK(!tokenizer.status().message().empty());
  }
  return 0;
}
