#include "gatefold/engine/step_loop.h"

#include <cmath>
#include <memory>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

class PlainAttention final : public AttentionClient {
 public:
  absl::StatusOr<int> Open(const SequenceSpec&) override { return 0; }
  void Close(SequenceId) override {}
  absl::Status EmbedAndAttend(const Step& step, float* x) override {
    for (int row = 0; row < step.n_rows(); ++row) {
      for (int d = 0; d < 64; ++d) x[row * 64 + d] = std::sin(1.0f + row * 7 + d);
    }
    return absl::OkStatus();
  }
  absl::Status Attend(const Step&, int, float*) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<Sampled>> Sample(const Step&, const float*) override {
    return std::vector<Sampled>();
  }
};

// Answers ones; where `drops` says so, nobody answers a row's first expert in layer 2.
class OnesButOne final : public ExpertClient {
 public:
  explicit OnesButOne(std::vector<bool> drops) : drops_(std::move(drops)) {}
  absl::Status Run(const Step&, int layer, const float*, const Routes& routes, float* answers,
                   uint8_t* served_by) override {
    std::fill_n(answers, routes.experts.size() * 64, 1.0f);
    std::fill_n(served_by, routes.experts.size(), 0);
    for (int row = 0; row < routes.n_rows && layer == 2; ++row) {
      if (!drops_[row]) continue;
      served_by[row * routes.top_k] = kNoShard;
      std::fill_n(answers + row * routes.top_k * 64, 64, 0.0f);
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<bool> drops_;
};

StepResult RunStep(std::vector<bool> drops) {
  const auto weights = *ModelWeights::Open("tests/golden/mixtral/f32");
  const auto model = *RouterModel::Load(*weights);
  ThreadPool threads(1, absl::ZeroDuration());
  PlainAttention attention;
  Step step;
  step.token_ids.resize(drops.size());
  step.want_trace = true;
  OnesButOne experts(std::move(drops));
  StepLoop loop(model->config(), &attention, &experts,
                MakeHostRows(model.get(), &threads, DType::kF32));
  return *loop.Run(step);
}

TEST(StepLoopTest, ARowWithoutOneOfItsExpertsGivesItsWeightToTheOthers) {
  const StepResult whole = RunStep({false, false, false});
  const StepResult degraded = RunStep({false, true, false});
  EXPECT_TRUE(whole.degraded.empty());
  EXPECT_EQ(degraded.degraded, std::vector<bool>({false, true, false}));
  const LayerTrace& before = whole.trace[2];
  const LayerTrace& after = degraded.trace[2];
  // Heaviest first, so the expert that is left leads.
  EXPECT_FLOAT_EQ(after.weights[2], before.weights[2] + before.weights[3]);
  EXPECT_EQ(after.weights[3], 0.0f);
  EXPECT_EQ(after.served_by[3], kNoShard);
  EXPECT_NE(after.experts[2], after.experts[3]);
  // The other rows do not notice.
  for (int i : {0, 1, 4, 5}) {
    EXPECT_EQ(after.weights[i], before.weights[i]);
    EXPECT_EQ(after.experts[i], before.experts[i]);
  }
}

}  // namespace
}  // namespace gatefold
