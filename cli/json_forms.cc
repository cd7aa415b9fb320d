#include "cli/json_forms.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

template <typename Message>
Json TokenJson(const Message& token) {
  return {{"token_id", token.token_id()}, {"token", token.token()}, {"logprob", token.logprob()}};
}

// Only where it happened: it never does unless the router's operator allows it.
template <typename Message>
void AddDoubts(const Message& message, Json* json) {
  if (const uint32_t n = message.degraded_tokens(); n > 0) (*json)["degraded_tokens"] = n;
  if (message.mixed_numerics()) (*json)["mixed_numerics"] = true;
}

}  // namespace

Json UsageJson(const inference::v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"cached_tokens", usage.cached_tokens()},
          {"output_tokens", usage.output_tokens()}};
}

Json GenerateJson(const Answer& answer) {
  Json json{{"token_ids", answer.token_ids},
            {"text", answer.text},
            {"finish_reason", FinishReasonName(answer.finish.reason())},
            {"usage", UsageJson(answer.summary.usage())}};
  AddDoubts(answer.summary, &json);
  return json;
}

Json LogprobsJson(const std::vector<inference::v1::TokenLogprobs>& tokens) {
  Json list = Json::array();
  for (const inference::v1::TokenLogprobs& token : tokens) {
    Json& entry = list.emplace_back(TokenJson(token));
    entry["top"] = Json::array();
    for (const auto& alternative : token.top()) entry["top"].push_back(TokenJson(alternative));
  }
  return list;
}

Json RoutingSharesJson(const RoutingShares& shares) {
  Json shards = Json::array();
  for (const auto& [shard, rows] : shares.by_shard) {
    shards.push_back({{"shard", shard}, {"rows", rows}, {"percent", shares.ShardShare(shard)}});
  }
  Json experts = Json::array();
  for (const auto& [id, rows] : shares.by_expert) {
    experts.push_back({{"layer", id.first},
                       {"expert", id.second},
                       {"rows", rows},
                       {"percent", shares.ExpertShare(id.first, id.second)}});
  }
  return {{"shards", std::move(shards)}, {"experts", std::move(experts)}};
}

absl::StatusOr<Json> ScoreJson(const inference::v1::ScoreTextResponse& response) {
  if (response.argmax_size() != response.tokens_size()) {
    return absl::InternalError(absl::StrCat("the answer has ", response.argmax_size(),
                                            " positions and ", response.tokens_size(), " tokens"));
  }
  Json argmax = Json::array();
  for (const int32_t id : response.argmax()) argmax.push_back(id);
  Json logprobs = Json::array();
  for (const inference::v1::TokenLogprobs& token : response.tokens()) {
    logprobs.push_back(token.has_logprob() ? Json(token.logprob()) : Json());
  }
  Json json{{"argmax", std::move(argmax)}, {"logprobs", std::move(logprobs)}};
  AddDoubts(response, &json);
  return json;
}

absl::StatusOr<Json> RoutingJson(const inference::v1::RoutingTrace& trace, int n_layers,
                                 int n_tokens) {
  GF_ASSIGN_OR_RETURN(const RoutingView view, RoutingView::Create(trace));
  if (view.n_layers() > 0 && view.n_tokens() != static_cast<size_t>(n_tokens)) {
    return absl::InternalError(
        absl::StrCat("the routing trace has ", view.n_tokens(), " of ", n_tokens, " tokens"));
  }
  Json layers = Json::array();
  for (int i = 0; i < n_layers; ++i) layers.push_back(nullptr);
  for (size_t layer = 0; layer < view.n_layers(); ++layer) {
    if (view.layer_id(layer) >= static_cast<uint32_t>(n_layers)) {
      return absl::InternalError(
          absl::StrCat("the routing trace has layer ", view.layer_id(layer), " of ", n_layers));
    }
    Json tokens = Json::array();
    for (size_t token = 0; token < view.n_tokens(); ++token) {
      Json experts = Json::array();
      Json weights = Json::array();
      for (size_t k = 0; k < view.top_k(); ++k) {
        experts.push_back(view.expert(token, layer, k));
        weights.push_back(view.weight(token, layer, k));
      }
      tokens.push_back({{"experts", std::move(experts)}, {"weights", std::move(weights)}});
    }
    layers[view.layer_id(layer)] = std::move(tokens);
  }
  return layers;
}

Json TokenIdsJson(const std::vector<int32_t>& token_ids) { return {{"token_ids", token_ids}}; }

Json TextJson(const std::string& text) { return {{"text", text}}; }

Json ModelJson(const inference::v1::Model& model) {
  Json json = {{"name", model.name()},
               {"family", model.family()},
               {"fingerprint", model.fingerprint()},
               {"parameters", model.parameters()},
               {"active_parameters", model.active_parameters()},
               {"weight_dtype", model.weight_dtype()},
               {"n_layers", model.n_layers()},
               {"n_experts", model.n_experts()},
               {"top_k", model.top_k()},
               {"n_slices", model.n_slices()},
               {"d_model", model.d_model()},
               {"n_heads", model.n_heads()},
               {"n_kv_heads", model.n_kv_heads()},
               {"head_dim", model.head_dim()},
               {"intermediate_size", model.intermediate_size()},
               {"vocab_size", model.vocab_size()},
               {"max_sequence_tokens", model.max_sequence_tokens()},
               {"has_chat_template", model.has_chat_template()}};
  json["eos_token_ids"] = Json::array();
  for (const int32_t id : model.eos_token_ids()) json["eos_token_ids"].push_back(id);
  json["bos_token_id"] = model.has_bos_token_id() ? Json(model.bos_token_id()) : Json();
  return json;
}

}  // namespace gatefold::cli
