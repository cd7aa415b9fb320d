#include "cli/eval/scorer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "cli/routing_view.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
absl::Status ExpertCounts::Add(const inference::v1::RoutingTrace& trace, size_t first_token,
                               size_t n_experts) {
  GF_ASSIGN_OR_RETURN(const RoutingView view, RoutingView::Create(trace));
  if (by_layer_.empty()) {
    layer_ids_.assign(trace.layer_ids().begin(), trace.layer_ids().end());
    by_layer_.assign(layer_ids_.size(), std::vector<uint64_t>(n_experts));
  }
  if (!std::equal(layer_ids_.begin(), layer_ids_.end(), trace.layer_ids().begin(),
                  trace.layer_ids().end())) {
    return absl::InvalidArgumentError("routing traces of one model name different layers");
  }
  for (size_t token = first_token; token < view.n_tokens(); ++token) {
    for (size_t layer = 0; layer < view.n_layers(); ++layer) {
      for (size_t k = 0; k < view.top_k(); ++k) {
        const int expert = view.expert(token, layer, k);
        if (expert < 0 || static_cast<size_t>(expert) >= n_experts) {
          return absl::InvalidArgumentError(absl::StrCat("the routing trace names expert ", expert,
                                                         " of a model with ", n_experts));
        }
        ++by_layer_[layer][expert];
      }
    }
  }
  return absl::OkStatus();
}

void ExpertCounts::Add(const ExpertCounts& other) {
  if (by_layer_.empty()) {
    *this = other;
    return;
  }
  if (other.by_layer_.empty()) return;
  GF_CHECK(other.layer_ids_ == layer_ids_);
  for (size_t layer = 0; layer < by_layer_.size(); ++layer) {
    for (size_t expert = 0; expert < by_layer_[layer].size(); ++expert) {
      by_layer_[layer][expert] += other.by_layer_[layer][expert];
    }
  }
}

double ExpertCounts::Share(size_t layer, size_t expert) const {
  if (by_layer_.empty()) return 0;  // a text of one token, which nothing stands before
  uint64_t all = 0;
  for (const uint64_t n : by_layer_[layer]) all += n;
  return all == 0 ? 0 : static_cast<double>(by_layer_[layer][expert]) / static_cast<double>(all);
}

double ExpertCounts::SmallestShare() const {
  double smallest = 1;
  for (size_t layer = 0; layer < by_layer_.size(); ++layer) {
    for (size_t expert = 0; expert < by_layer_[layer].size(); ++expert) {
      smallest = std::min(smallest, Share(layer, expert));
    }
  }
  return smallest;
}

absl::StatusOr<Scorer> Scorer::Create(Connection* connection, const Options& options) {
  GF_ASSIGN_OR_RETURN(inference::v1::Model model, connection->GetModel());
  const uint32_t longest = model.max_sequence_tokens();
  if (options.window == 1 || options.window > longest) {
    return UsageError(absl::StrCat("--window is ", options.window, ", must be 2 to ", longest,
                                   ", the longest sequence of this model"));
  }
  const uint32_t window = options.window > 0 ? options.window : std::min(longest, kDefaultWindow);
  return Scorer(connection, std::move(model), window, options.routing);
}

absl::StatusOr<Scorer::Tokens> Scorer::Tokenize(const std::string& text) const {
  inference::v1::TokenizeRequest request;
  request.mutable_prompt()->set_text(text);
  const auto tokenize = [&](inference::v1::TokenizeResponse* response) {
    Call call(*connection_);
    return connection_->ToStatus(
        connection_->inference()->Tokenize(call.context(), request, response));
  };
  inference::v1::TokenizeResponse whole, bare;
  GF_RETURN_IF_ERROR(tokenize(&whole));
  // A text may itself begin with what stands for the begin of a sequence: only the count tells.
  request.mutable_prompt()->set_add_special_tokens(false);
  GF_RETURN_IF_ERROR(tokenize(&bare));
  Tokens tokens;
  tokens.ids.assign(whole.token_ids().begin(), whole.token_ids().end());
  tokens.n_text = static_cast<size_t>(bare.token_ids_size());
  const bool starts_alike = whole.token_ids_size() > 0 && bare.token_ids_size() > 0 &&
                            whole.token_ids_size() == bare.token_ids_size();
  if (starts_alike && whole.tokens_size() > 0) tokens.n_free_bytes = whole.tokens(0).size();
  return tokens;
}

absl::StatusOr<Scorer::Score> Scorer::ScoreTokens(absl::Span<const int32_t> ids,
                                                  size_t first) const {
  GF_CHECK(first >= 1);
  Score score;
  size_t next = first;  // not scored yet
  while (next < ids.size()) {
    // The first window may score all that it holds; those after it keep half of it as a past.
    size_t end = std::min(
        ids.size(), next == first && next < window_ / 2 ? size_t{window_} : next + window_ / 2);
    const size_t start = end > window_ ? end - window_ : 0;
    GF_RETURN_IF_ERROR(ScoreWindow(ids.subspan(start, end - start), next - start, &score));
    next = end;
  }
  return score;
}

absl::Status Scorer::ScoreWindow(absl::Span<const int32_t> ids, size_t from, Score* score) const {
  inference::v1::ScoreTextRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  request.set_routing_trace(routing_);
  Call call(*connection_);
  inference::v1::ScoreTextResponse response;
  GF_RETURN_IF_ERROR(connection_->ToStatus(
      connection_->inference()->ScoreText(call.context(), request, &response)));
  if (static_cast<size_t>(response.tokens_size()) != ids.size()) {
    return absl::InternalError(absl::StrCat("the answer has ", response.tokens_size(),
                                            " scores for ", ids.size(), " tokens"));
  }
  for (size_t i = from; i < ids.size(); ++i) {
    score->nats -= response.tokens(static_cast<int>(i)).logprob();
    ++score->n_tokens;
  }
  if (!routing_ || model_.n_experts() == 0) return absl::OkStatus();
  return score->experts.Add(response.routing_trace(), from, model_.n_experts());
}

}  // namespace gatefold::cli
