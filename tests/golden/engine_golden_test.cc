// The engine alone, without gateway and wire, against references from Hugging Face transformers.
// When the shapes of tests/integration/golden_test.cc differ and this passes, look at the wire.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "attention-service/local_attention_client.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/local_expert_client.h"
#include "gatefold/engine/router_model.h"
#include "gtest/gtest.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {
namespace {

class Collector final : public GenerationListener {
 public:
  void OnPromptScores(int, const std::vector<Sampled>& told) override {
    scores.insert(scores.end(), told.begin(), told.end());
  }
  bool OnToken(const Sampled& token) override {
    tokens.push_back(token.token);
    return true;
  }
  void OnEnd(const GenerationEnd& end) override {
    status = end.status;
    done.Notify();
  }
  std::vector<Sampled> scores;
  std::vector<int64_t> tokens;
  absl::Status status;
  absl::Notification done;
};

template <typename T>
std::vector<T> Get(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor* tensor = file.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  std::vector<T> values(tensor->size_bytes() / sizeof(T));
  std::memcpy(values.data(), tensor->data, tensor->size_bytes());
  return values;
}

class EngineGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(EngineGoldenTest, MatchesTheReference) {
  const std::string dir = std::string("tests/golden/") + GetParam();
  auto weights = ModelWeights::Open(dir);
  ASSERT_TRUE(weights.ok()) << weights.status();
  auto reference = SafetensorsFile::Open(dir + "/ref.safetensors");
  ASSERT_TRUE(reference.ok()) << reference.status();
  const ModelConfig& config = (*weights)->config();
  ThreadPool threads(1, absl::ZeroDuration());
  const std::unique_ptr<AttentionBackend> attention =
      MakeCpuAttentionBackend(weights->get(), &threads);
  auto kv = KvBlockPool::Create(attention->kv_shape(), 32 << 20);
  ASSERT_TRUE(attention->Load((*kv)->n_blocks(), config.max_positions, nullptr).ok());
  PrefixCache cache(kv->get());
  AttentionRunner attention_runner(&config, attention.get(), &cache, &threads);
  const std::unique_ptr<ExpertBackend> backend = MakeCpuExpertBackend(&threads);
  ExpertStore store(config, backend.get());
  const auto all = *ParseExpertSelection("all", config.n_layers, config.experts_per_layer());
  ASSERT_TRUE(
      CheckpointExperts(weights->get(), backend.get()).Fill(all, &threads, nullptr, &store).ok());
  ExpertRunner expert_runner(&store);
  auto router = *RouterModel::Load(**weights);
  LaneEngine engine;
  engine.attention = std::make_unique<LocalAttentionClient>(&attention_runner);
  engine.experts = std::make_unique<LocalExpertClient>(&expert_runner);
  engine.loop =
      std::make_unique<StepLoop>(router->config(), engine.attention.get(), engine.experts.get(),
                                 MakeHostRows(router.get(), &threads, DType::kF32));
  std::vector<LaneEngine> engines;
  engines.push_back(std::move(engine));
  auto scheduler = Scheduler::Create({.max_step_tokens = 64}, std::move(engines), nullptr);

  for (const std::string len : {"len1", "len17", "len200"}) {
    const auto ids = Get<int64_t>(**reference, len + ".input_ids");
    GenerationRequest request;
    request.prompt.assign(ids.begin(), ids.end());
    request.score_prompt = true;
    request.want_last_logits = true;
    auto score = std::make_shared<Collector>();
    auto scored = (*scheduler)->Submit(request, score);
    score->done.WaitForNotification();
    ASSERT_TRUE(score->status.ok()) << score->status;
    const auto logits = Get<float>(**reference, len + ".last_logits");
    ASSERT_EQ(score->scores.back().logits.size(), logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      ASSERT_NEAR(score->scores.back().logits[i], logits[i], 2e-4) << len;
    }
    request.score_prompt = request.want_last_logits = false;
    request.sampling.temperature = 0;
    request.max_output_tokens = 32;
    auto greedy = std::make_shared<Collector>();
    auto generated = (*scheduler)->Submit(request, greedy);
    greedy->done.WaitForNotification();
    EXPECT_EQ(greedy->tokens, Get<int64_t>(**reference, len + ".greedy")) << len;
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, EngineGoldenTest,
                         testing::Values("llama/f32", "llama/bf16", "llama3/f32", "llama3/bf16",
                                         "mixtral/f32", "mixtral/bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[name.find('/')] = '_';
                           return name;
                         });

}  // namespace
}  // namespace gatefold
