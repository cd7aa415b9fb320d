// Streams an answer, and goes on at another router if the one it speaks to goes away:
//   example_generate "unix:/run/a.sock|127.0.0.1:8000" "Once upon a time"
// The first argument lists routers. The seed and the tokens received so far are all the state a
// generation has, so the text is the same as if nothing had happened.
// GATEFOLD_TLS_CA_FILE, and _CERT_FILE with _KEY_FILE where callers need a certificate, make the
// connection TLS; GATEFOLD_API_KEY is sent where keys are asked for.

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "gatefold/inference/v1/inference.grpc.pb.h"

namespace inference = gatefold::inference::v1;

namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The file that the environment names; empty if it names none.
std::string ReadNamedFile(const char* name) {
  const std::string path = Environment(name);
  if (path.empty()) return "";
  std::ifstream file(path);
  std::stringstream content;
  content << file.rdbuf();
  if (!file || content.str().empty()) {
    std::fprintf(stderr, "%s: cannot read %s\n", name, path.c_str());
    std::exit(1);
  }
  return content.str();
}

std::shared_ptr<grpc::ChannelCredentials> Credentials() {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadNamedFile("GATEFOLD_TLS_CA_FILE");
  if (options.pem_root_certs.empty()) return grpc::InsecureChannelCredentials();
  options.pem_cert_chain = ReadNamedFile("GATEFOLD_TLS_CERT_FILE");
  options.pem_private_key = ReadNamedFile("GATEFOLD_TLS_KEY_FILE");
  return grpc::SslCredentials(options);
}

// What must be known to go on elsewhere. The request needs a seed for it.
struct Generation {
  inference::StreamGenerateTextRequest request;
  bool finished = false;
};

// One attempt at one router: prints the text as it comes, and notes the tokens.
grpc::Status Run(inference::InferenceService::Stub* stub, Generation* generation) {
  grpc::ClientContext context;
  if (const std::string key = Environment("GATEFOLD_API_KEY"); !key.empty()) {
    context.AddMetadata("authorization", "Bearer " + key);
  }
  auto reader = stub->StreamGenerateText(&context, generation->request);
  inference::StreamGenerateTextResponse response;
  std::vector<int> tokens;
  std::string rest;
  while (reader->Read(&response)) {
    if (response.has_started()) {
      generation->request.mutable_request()->mutable_config()->set_seed(response.started().seed());
    } else if (response.has_delta() && response.delta().n_tokens() > 0) {
      std::fputs(response.delta().text().c_str(), stdout);
      std::fflush(stdout);
      for (int id : response.delta().token_ids()) tokens.push_back(id);
    } else if (response.has_delta()) {
      // Left at the end; without the finish it comes again from the next router.
      rest = response.delta().text();
    } else if (response.has_finish()) {
      std::fputs(rest.c_str(), stdout);
      generation->finished = true;
    } else if (response.has_summary()) {
      const inference::Usage& usage = response.summary().usage();
      std::fprintf(stderr, "\n%u prompt tokens, %u output tokens, seed %llu\n",
                   usage.prompt_tokens(), usage.output_tokens(),
                   static_cast<unsigned long long>(response.summary().effective_config().seed()));
    }
  }
  for (int id : tokens) generation->request.add_resume_token_ids(id);
  return reader->Finish();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s ROUTER[|ROUTER...] PROMPT\n", argv[0]);
    return 2;
  }
  Generation generation;
  inference::GenerateTextRequest* request = generation.request.mutable_request();
  request->mutable_prompt()->set_text(argv[2]);
  request->mutable_config()->set_max_output_tokens(64);
  request->mutable_output()->set_token_ids(true);  // to resume from

  const auto credentials = Credentials();
  grpc::Status status;
  for (const std::string& router : Split(argv[1], '|')) {
    auto stub = inference::InferenceService::NewStub(grpc::CreateChannel(router, credentials));
    status = Run(stub.get(), &generation);
    // Another router may do better. A call can be cancelled by a router that goes in that moment.
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE &&
        status.error_code() != grpc::StatusCode::CANCELLED) {
      break;
    }
    // All tokens may have come before the router went: then there is nothing left to ask for.
    if (generation.finished) return 0;
    std::fprintf(stderr, "\n%s: %s\n", router.c_str(), status.error_message().c_str());
  }
  if (!status.ok()) {
    std::fprintf(stderr, "failed: %s\n", status.error_message().c_str());
    return 1;
  }
  return 0;
}
