#include "gatefold/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"

namespace gatefold {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMaxGroupDepth = 100;
// For one search through one piece of text. Real patterns take some steps per character.
constexpr uint32_t kMaxSteps = 20'000'000;
constexpr uint32_t kMaxHeapKib = 64 << 10;
constexpr size_t kJitStackStart = 32 << 10;
constexpr size_t kJitStackMax = 4 << 20;

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[200];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct RegexScratch::Parts {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);

  Parts() {
    pcre2_set_match_limit(context, kMaxSteps);
    pcre2_set_depth_limit(context, kMaxSteps);
    pcre2_set_heap_limit(context, kMaxHeapKib);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Parts() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;
};

RegexScratch::RegexScratch() = default;
RegexScratch::~RegexScratch() = default;

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::~Regex() = default;

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pattern.size(), " bytes; at most ", kMaxPatternBytes));
  }
  GF_ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern));
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, kMaxGroupDepth);
  int error = 0;
  size_t offset = 0;
  auto code = std::make_unique<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern does not compile: ", PcreMessage(error)));
  }
  // Where there is no JIT the interpreter runs, under the same limits.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return std::unique_ptr<Regex>(new Regex(std::move(code)));
}

absl::Status Regex::FindAll(absl::string_view text, RegexScratch* scratch,
                            std::vector<Span>* matches) const {
  if (scratch->parts_ == nullptr) scratch->parts_ = std::make_unique<RegexScratch::Parts>();
  RegexScratch::Parts& parts = *scratch->parts_;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t at = 0;
  size_t last_end = static_cast<size_t>(-1);
  while (at <= text.size()) {
    // The text has been checked once; checking it at each match would cost quadratic time.
    const int rc = pcre2_match(code_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK,
                               parts.match, parts.context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "a pattern of the tokenizer takes too many steps on this text: ", PcreMessage(rc)));
    }
    const size_t* ends = pcre2_get_ovector_pointer(parts.match);
    const Span match{ends[0], ends[1]};
    if (match.begin > match.end || match.begin < at) break;  // \K in a lookaround
    if (match.begin == match.end && match.end == last_end) {
      if (at == text.size()) break;
      NextCodePoint(text, &at);
      continue;
    }
    matches->push_back(match);
    at = last_end = match.end;
  }
  return absl::OkStatus();
}

}  // namespace gatefold
