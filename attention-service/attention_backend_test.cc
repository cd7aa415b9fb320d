#include "attention-service/attention_backend.h"

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "attention-service/sampler.h"
#include "gatefold/kernels/isa.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

// A model that every backend computes.
std::string ModelDir() {
  static const std::string& dir = *[] {
    RandomModelOptions options;
    options.family = "llama";
    options.layers = 2;
    options.heads = 4;
    options.head_dim = 64;
    options.attention_bias = true;
    auto* const written = new std::string(testing::TempDir() + "attention_backend_test_model");
    EXPECT_TRUE(WriteRandomModel(options, *written).ok());
    return written;
  }();
  return dir;
}

// first, first + 1, ...
std::vector<int32_t> Rows(int first, int n) {
  std::vector<int32_t> rows(n);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

class AttentionBackendTest : public testing::Test {
 protected:
  // A loaded backend with room for 16 blocks; null: it cannot be had here.
  std::unique_ptr<AttentionBackend> Make(const char* name) {
    auto backend = ChooseAttentionBackend(name, weights_.get(), &threads_);
    if (!backend.ok()) return nullptr;
    EXPECT_TRUE((*backend)->Load(16, 128, nullptr).ok());
    return *std::move(backend);
  }
  // Rows [begin, end) through all layers, without experts; they are in that memory.
  std::vector<float> Run(AttentionBackend* backend, const std::vector<BlockId>& table, int begin,
                         int end, const HostMemory& memory = HeapMemory()) {
    std::vector<AttentionRow> rows;
    std::vector<int32_t> tokens;
    for (int p = begin; p < end; ++p) {
      rows.push_back({p, table.data()});
      tokens.push_back(3 + p * 5 % 50);
    }
    const ModelConfig& config = weights_->config();
    const size_t n = rows.size() * config.d_model;
    auto* const x = static_cast<float*>(memory.allocate(n * sizeof(float)));
    EXPECT_TRUE(backend->EmbedAndAttend(rows, tokens, x).ok());
    for (int l = 1; l < config.n_layers; ++l) EXPECT_TRUE(backend->Attend(l, rows, x).ok());
    std::vector<float> result(x, x + n);
    memory.free(x);
    return result;
  }

  ThreadPool threads_{1, absl::ZeroDuration()};
  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open(ModelDir());
};

TEST_F(AttentionBackendTest, CountsAMatrixOnceThatIsEmbeddingAndHead) {
  RandomModelOptions options;
  options.tie_word_embeddings = true;
  const std::string dir = testing::TempDir() + "attention_backend_test_tied";
  ASSERT_TRUE(WriteRandomModel(options, dir).ok());
  const auto weights = ModelWeights::Open(dir);
  ASSERT_TRUE(weights.ok()) << weights.status();
  LoadProgress progress({.total_bytes = (*weights)->role_bytes().attention});
  const auto backend = MakeCpuAttentionBackend(weights->get(), &threads_);
  ASSERT_TRUE(backend->Load(16, 128, &progress).ok());
  // Norms do not count.
  EXPECT_LE(progress.done_bytes(), progress.total_bytes());
  EXPECT_GT(progress.done_bytes(), progress.total_bytes() * 9 / 10);
}

TEST_F(AttentionBackendTest, RefusesANameThatIsNone) {
  const auto backend = ChooseAttentionBackend("gpu", weights_.get(), &threads_);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()),
              HasSubstr("\"gpu\", must be auto, cpu or cuda"));
}

TEST_F(AttentionBackendTest, AutoIsWhatCanBeHad) {
  const auto cuda = MakeCudaAttentionBackend(weights_.get());
  const auto chosen = ChooseAttentionBackend("auto", weights_.get(), &threads_);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ((*chosen)->name(), cuda.ok() ? "cuda" : "cpu");
  if (!cuda.ok()) {
    EXPECT_EQ((*chosen)->numerics_class(), kernels::NumericsClass());
    // Who insists is told why not.
    const auto insisted = ChooseAttentionBackend("cuda", weights_.get(), &threads_);
    EXPECT_EQ(insisted.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(insisted.status().message(), cuda.status().message());
    EXPECT_THAT(absl::AsciiStrToLower(cuda.status().message()), HasSubstr("cuda"));
  }
}

TEST_F(AttentionBackendTest, AutoLeavesToTheCpuWhatADeviceHasNoRoomFor) {
  if (!MakeCudaAttentionBackend(weights_.get()).ok()) GTEST_SKIP() << "skipped: no cuda backend";
  constexpr size_t kMuch = size_t{1} << 50;
  const auto cuda = ChooseAttentionBackend("cuda", weights_.get(), &threads_, kMuch);
  EXPECT_EQ(cuda.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(cuda.status().message()), HasSubstr("are free"));
  EXPECT_EQ((*ChooseAttentionBackend("auto", weights_.get(), &threads_, kMuch))->name(), "cpu");
}

// What weights take there is more than in the checkpoint: here, where rows are padded, and where an
// embedding is the LM head as well.
TEST_F(AttentionBackendTest, CountsWhatWeightsTakeOnADevice) {
  const auto cuda = MakeCudaAttentionBackend(weights_.get());
  if (!cuda.ok()) GTEST_SKIP() << "skipped: no cuda backend";
  const size_t most = (*cuda)->memory_bytes() / 20 * 19 - weights_->role_bytes().attention;
  EXPECT_EQ(MakeCudaAttentionBackend(weights_.get(), most).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// With more and more memory, till there is enough: a step that fails says in what, and those after
// it are as ever.
TEST_F(AttentionBackendTest, AStepWithoutMemoryFailsAlone) {
  const std::unique_ptr<AttentionBackend> cuda = Make("cuda");
  if (cuda == nullptr) GTEST_SKIP() << "skipped: no cuda backend";
  if (cuda->device().find("emulated") == std::string::npos) {
    GTEST_SKIP() << "skipped: not the emulated device";
  }
  const std::vector<float> whole = Run(Make("cuda").get(), {0, 1, 2}, 0, 40);
  const std::vector<BlockId> table = {0, 1, 2};
  std::vector<AttentionRow> rows;
  std::vector<int32_t> tokens;
  for (int p = 0; p < 40; ++p) {
    rows.push_back({p, table.data()});
    tokens.push_back(3 + p * 5 % 50);
  }
  std::vector<float> x(whole.size());
  std::string messages;
  absl::Status status = absl::UnknownError("not tried");
  for (size_t more = 0; !status.ok(); more += 48 << 10) {
    ASSERT_LT(more, size_t{16} << 20) << status;
    const size_t used =
        (size_t{8} << 30) - (*MakeCudaAttentionBackend(weights_.get()))->memory_bytes();
    setenv("GATEFOLD_EMULATOR_MEMORY", std::to_string(used + more).c_str(), 1);
    status = cuda->EmbedAndAttend(rows, tokens, x.data());
    unsetenv("GATEFOLD_EMULATOR_MEMORY");
    if (status.ok()) break;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    messages += std::string(status.message()) + "\n";
  }
  EXPECT_THAT(messages, HasSubstr("EmbedAndAttend: out of memory"));
  EXPECT_EQ(Run(cuda.get(), table, 0, 40), whole);
}

// What a service relies on, whichever backend it has.
class AttentionBackendRowLaw : public AttentionBackendTest,
                               public testing::WithParamInterface<const char*> {};

TEST_P(AttentionBackendRowLaw, ChunksBlocksAndLogitsOfOthersDoNotShow) {
  const std::unique_ptr<AttentionBackend> backend = Make(GetParam());
  if (backend == nullptr) GTEST_SKIP() << "skipped: no " << GetParam() << " backend";
  const std::vector<float> whole = Run(backend.get(), {0, 1, 2}, 0, 40);
  std::vector<float> chunks;
  const std::vector<BlockId> other = {9, 4, 12};
  for (const auto& [begin, end] : {std::pair(0, 7), {7, 39}, {39, 40}}) {
    const std::vector<float> some = Run(backend.get(), other, begin, end);
    chunks.insert(chunks.end(), some.begin(), some.end());
  }
  EXPECT_EQ(chunks, whole);

  const ModelConfig& config = weights_->config();
  std::vector<float> logits(AttentionBackend::kMaxLogitRows * config.vocab_size);
  ASSERT_TRUE(
      backend->Logits(whole.data(), Rows(0, AttentionBackend::kMaxLogitRows), logits.data()).ok());
  std::vector<float> alone(config.vocab_size);
  ASSERT_TRUE(backend->Logits(whole.data(), {5}, alone.data()).ok());
  EXPECT_EQ(alone, std::vector<float>(logits.begin() + 5 * config.vocab_size,
                                      logits.begin() + 6 * config.vocab_size));
  std::vector<float> scattered(2 * config.vocab_size);
  ASSERT_TRUE(backend->Logits(whole.data(), {9, 5}, scattered.data()).ok());
  EXPECT_EQ(alone, std::vector<float>(scattered.begin() + config.vocab_size, scattered.end()));
}

TEST_P(AttentionBackendRowLaw, WhereRowsAreDoesNotShow) {
  const std::unique_ptr<AttentionBackend> backend = Make(GetParam());
  if (backend == nullptr) GTEST_SKIP() << "skipped: no " << GetParam() << " backend";
  const std::vector<float> in_heap = Run(backend.get(), {0, 1, 2}, 0, 40);
  EXPECT_EQ(Run(backend.get(), {3, 4, 5}, 0, 40, backend->row_memory()), in_heap);
  EXPECT_EQ(Run(backend.get(), {6, 7, 8}, 0, 40), in_heap);
}

// Of one prompt as of several: those before it may be the beginning of another one that is sound.
TEST_P(AttentionBackendRowLaw, ARowThatIsNoNumberDoesNotShowInThoseBefore) {
  const std::unique_ptr<AttentionBackend> backend = Make(GetParam());
  if (backend == nullptr) GTEST_SKIP() << "skipped: no " << GetParam() << " backend";
  constexpr int kRows = 40, kBroken = 20;
  const std::vector<BlockId> table = {0, 1, 2};
  std::vector<AttentionRow> rows;
  for (int p = 0; p < kRows; ++p) rows.push_back({p, table.data()});
  const std::vector<int32_t> tokens(kRows, 3);
  const int d_model = weights_->config().d_model;
  std::vector<float> sound(kRows * d_model);
  ASSERT_TRUE(backend->EmbedAndAttend(rows, tokens, sound.data()).ok());
  std::vector<float> broken = sound;
  broken[kBroken * d_model + 5] = NAN;
  ASSERT_TRUE(backend->Attend(1, rows, sound.data()).ok());
  ASSERT_TRUE(backend->Attend(1, rows, broken.data()).ok());
  const auto before = [&](const std::vector<float>& x) {
    return std::vector<float>(x.begin(), x.begin() + kBroken * d_model);
  };
  EXPECT_EQ(before(broken), before(sound));
  for (int p = kBroken; p < kRows; ++p) EXPECT_TRUE(std::isnan(broken[p * d_model])) << p;
}

// Layers of two steps between each other, as those of two lanes.
TEST_P(AttentionBackendRowLaw, StepsOfOtherLanesDoNotShow) {
  const std::unique_ptr<AttentionBackend> backend = Make(GetParam());
  if (backend == nullptr) GTEST_SKIP() << "skipped: no " << GetParam() << " backend";
  const std::vector<BlockId> tables[2] = {{0, 1}, {2, 3}};
  const std::vector<float> a = Run(backend.get(), tables[0], 0, 20);
  const std::vector<AttentionRow> rows[2] = {{{0, tables[0].data()}, {1, tables[0].data()}},
                                             {{0, tables[1].data()}}};
  const std::vector<int32_t> tokens = {3, 8};  // those of Run
  const int d_model = weights_->config().d_model;
  std::vector<float> x[2] = {std::vector<float>(2 * d_model), std::vector<float>(d_model)};
  for (int lane : {0, 1}) {
    const auto ids = absl::MakeConstSpan(tokens).first(rows[lane].size());
    ASSERT_TRUE(backend->EmbedAndAttend(rows[lane], ids, x[lane].data()).ok());
  }
  for (int lane : {0, 1}) ASSERT_TRUE(backend->Attend(1, rows[lane], x[lane].data()).ok());
  EXPECT_EQ(x[0], std::vector<float>(a.begin(), a.begin() + 2 * d_model));
  EXPECT_EQ(x[1], std::vector<float>(a.begin(), a.begin() + d_model));
}

INSTANTIATE_TEST_SUITE_P(Backends, AttentionBackendRowLaw, testing::Values("cpu", "cuda"));

TEST_F(AttentionBackendTest, BackendsAgreeWithinTheirRounding) {
  const std::unique_ptr<AttentionBackend> cpu = Make("cpu"), cuda = Make("cuda");
  if (cuda == nullptr) GTEST_SKIP() << "skipped: no cuda backend";
  const ModelConfig& config = weights_->config();
  std::vector<float> logits[2];
  for (AttentionBackend* backend : {cpu.get(), cuda.get()}) {
    const std::vector<float> x = Run(backend, {0, 1, 2}, 0, 40);
    std::vector<float>& to = logits[backend == cuda.get()];
    to.resize(8 * config.vocab_size);
    ASSERT_TRUE(backend->Logits(x.data(), Rows(32, 8), to.data()).ok());
  }
  double difference = 0, size = 0;
  for (size_t i = 0; i < logits[0].size(); ++i) {
    difference += std::pow(logits[1][i] - logits[0][i], 2);
    size += std::pow(logits[0][i], 2);
  }
  // bfloat16 keeps 8 bits of the rows between products.
  EXPECT_LT(std::sqrt(difference / size), 2e-2);
}

// With whatever is beside it: 40 rows are more than logits are computed for at a time.
TEST_F(AttentionBackendTest, DrawsWhatTheSamplerDraws) {
  const std::unique_ptr<AttentionBackend> cuda = Make("cuda");
  if (cuda == nullptr) GTEST_SKIP() << "skipped: no cuda backend";
  ASSERT_TRUE(cuda->draws());
  EXPECT_FALSE(Make("cpu")->draws());
  const ModelConfig& config = weights_->config();
  std::vector<float> x = Run(cuda.get(), {0, 1, 2}, 0, 40);
  x[7 * config.d_model] = NAN;
  std::vector<PlainDraw> draws;
  for (int i = 0; i < 40; ++i) {
    draws.push_back({.seed = static_cast<uint64_t>(i),
                     .position = i,
                     .temperature = i % 4 == 0 ? 0.0f : 1.5f,
                     .top_k = i % 3 * 20,
                     .top_p = i % 5 == 0 ? 0.8f : 1.0f,
                     .min_p = i % 7 == 0 ? 0.1f : 0.0f});
  }
  std::vector<DrawnToken> drawn(draws.size());
  ASSERT_TRUE(cuda->Draw(x.data(), Rows(0, 40), draws, drawn.data()).ok());
  std::vector<float> logits(config.vocab_size);
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(drawn[i].not_a_number, i == 7);
    if (i == 7) continue;
    ASSERT_TRUE(cuda->Logits(x.data(), {i}, logits.data()).ok());
    const SamplingParams params = {.temperature = draws[i].temperature,
                                   .top_k = draws[i].top_k,
                                   .top_p = draws[i].top_p,
                                   .min_p = draws[i].min_p,
                                   .seed = draws[i].seed};
    EXPECT_EQ(drawn[i].token, DrawToken(logits, params, {}, i));
    EXPECT_EQ(drawn[i].argmax, Argmax(logits));
    DrawnToken alone;
    ASSERT_TRUE(cuda->Draw(x.data(), {i}, {draws[i]}, &alone).ok());
    EXPECT_EQ(alone.token, drawn[i].token);
  }
}

}  // namespace
}  // namespace gatefold
