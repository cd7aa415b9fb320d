#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/inference/v1/model.grpc.pb.h"

namespace gatefold::cli {

// A router for tests: answers "ab" and "c" as tokens 7, 8 and 9, whatever the prompt, and notes
// what it was asked.
class FakeRouter final : public inference::v1::InferenceService::Service,
                         public inference::v1::ModelService::Service,
                         public cluster::v1::ClusterService::Service {
 public:
  explicit FakeRouter(const std::shared_ptr<grpc::ServerCredentials>& credentials =
                          grpc::InsecureServerCredentials()) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterService(static_cast<inference::v1::InferenceService::Service*>(this));
    builder.RegisterService(static_cast<inference::v1::ModelService::Service*>(this));
    builder.RegisterService(static_cast<cluster::v1::ClusterService::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeRouter() override { server_->Shutdown(); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  grpc::Status StreamGenerateText(
      grpc::ServerContext* context, const inference::v1::StreamGenerateTextRequest* request,
      grpc::ServerWriter<inference::v1::StreamGenerateTextResponse>* writer) override {
    generate_requests.push_back(request->request());
    resume_token_ids.assign(request->resume_token_ids().begin(), request->resume_token_ids().end());
    const auto key = context->client_metadata().find("authorization");
    authorization = key == context->client_metadata().end()
                        ? ""
                        : std::string(key->second.data(), key->second.size());
    if (!failure.ok()) return failure;
    inference::v1::StreamGenerateTextResponse event;
    event.mutable_started()->mutable_prompt()->set_n_tokens(3);
    event.mutable_started()->set_seed(17);
    writer->Write(event);
    if (resume_token_ids.empty()) WriteDelta(writer, "ab", {7, 8});
    if (leave) {
      WriteDelta(writer, "held back", {});  // which the next one says again
      return {grpc::StatusCode::UNAVAILABLE, "going"};
    }
    if (hang && generate_requests.size() > n_before_hang) {
      hanging.Notify();
      while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
      return grpc::Status::CANCELLED;
    }
    WriteDelta(writer, "c", {9});
    if (lose_the_end) return grpc::Status::OK;
    event.mutable_finish()->set_reason(inference::v1::FINISH_REASON_LENGTH);
    writer->Write(event);
    inference::v1::Usage* usage = event.mutable_summary()->mutable_usage();
    usage->set_prompt_tokens(3);
    usage->set_cached_tokens(1);
    usage->set_output_tokens(3);
    writer->Write(event);
    return end;
  }
  grpc::Status ScoreText(grpc::ServerContext*, const inference::v1::ScoreTextRequest* request,
                         inference::v1::ScoreTextResponse* response) override {
    score_requests.push_back(*request);
    *response = score_response;
    return grpc::Status::OK;
  }
  grpc::Status Tokenize(grpc::ServerContext*, const inference::v1::TokenizeRequest* request,
                        inference::v1::TokenizeResponse* response) override {
    tokenize_requests.push_back(*request);
    response->add_token_ids(4);
    response->add_tokens("x");
    return grpc::Status::OK;
  }
  grpc::Status Detokenize(grpc::ServerContext*, const inference::v1::DetokenizeRequest* request,
                          inference::v1::DetokenizeResponse* response) override {
    detokenize_requests.push_back(*request);
    response->set_text("t\xC3\xA4xt");
    return grpc::Status::OK;
  }
  grpc::Status GetModel(grpc::ServerContext*, const inference::v1::GetModelRequest*,
                        inference::v1::GetModelResponse* response) override {
    response->mutable_model()->set_name("fake");
    response->mutable_model()->set_n_layers(2);
    response->mutable_model()->set_vocab_size(16);
    response->mutable_model()->set_max_sequence_tokens(64);
    response->mutable_model()->set_has_chat_template(true);
    return grpc::Status::OK;
  }
  // Two pages.
  grpc::Status ListModels(grpc::ServerContext*, const inference::v1::ListModelsRequest* request,
                          inference::v1::ListModelsResponse* response) override {
    const bool first = request->page_token().empty();
    response->add_models()->set_name(first ? "one" : "two");
    if (first) response->set_next_page_token("more");
    return grpc::Status::OK;
  }
  // A cluster where nothing is and nothing happens.
  grpc::Status GetServingStats(grpc::ServerContext*, const cluster::v1::GetServingStatsRequest*,
                               cluster::v1::GetServingStatsResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status GetCluster(grpc::ServerContext*, const cluster::v1::GetClusterRequest*,
                          cluster::v1::GetClusterResponse*) override {
    return grpc::Status::OK;
  }

  std::vector<inference::v1::GenerateTextRequest> generate_requests;
  std::string authorization;  // of the last one
  std::vector<inference::v1::ScoreTextRequest> score_requests;
  std::vector<inference::v1::TokenizeRequest> tokenize_requests;
  std::vector<inference::v1::DetokenizeRequest> detokenize_requests;
  inference::v1::ScoreTextResponse score_response;
  std::vector<int32_t> resume_token_ids;  // of the last one
  grpc::Status failure;                   // of StreamGenerateText
  grpc::Status end;                       // of its stream, when all is said
  bool leave = false;                     // after the first delta
  bool lose_the_end = false;              // of its stream
  bool hang = false;                      // after the first delta, until cancelled
  size_t n_before_hang = 0;               // requests that are answered first
  absl::Notification hanging;

 private:
  static void WriteDelta(grpc::ServerWriter<inference::v1::StreamGenerateTextResponse>* writer,
                         const std::string& text, const std::vector<int32_t>& ids) {
    inference::v1::StreamGenerateTextResponse event;
    event.mutable_delta()->set_text(text);
    event.mutable_delta()->set_n_tokens(static_cast<uint32_t>(ids.size()));
    for (const int32_t id : ids) event.mutable_delta()->add_token_ids(id);
    writer->Write(event);
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gatefold::cli
