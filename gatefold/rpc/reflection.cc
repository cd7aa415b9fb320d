#include "gatefold/rpc/reflection.h"

#include <grpcpp/support/status.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/frame_stream.h"
#include "gatefold/rpc/method_name.h"
#include "gatefold/rpc/stream_server.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace gatefold {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

constexpr char kService[] = "grpc.reflection.v1alpha.ServerReflection";
constexpr char kMethod[] = "ServerReflectionInfo";
constexpr size_t kMaxRequestBytes = 64 << 10;

void SetNotFound(absl::string_view what, ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
  response->mutable_error_response()->set_error_message(absl::StrCat("not found: ", what));
}

void AddFileAndImports(const FileDescriptor* file, absl::flat_hash_set<const FileDescriptor*>* seen,
                       ServerReflectionResponse* response) {
  if (!seen->insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  proto.SerializeToString(
      response->mutable_file_descriptor_response()->add_file_descriptor_proto());
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFileAndImports(file->dependency(i), seen, response);
  }
}

void SetFile(const FileDescriptor* file, absl::string_view asked,
             ServerReflectionResponse* response) {
  if (file == nullptr) return SetNotFound(asked, response);
  absl::flat_hash_set<const FileDescriptor*> seen;
  AddFileAndImports(file, &seen, response);
}

void SetExtensionNumbers(const std::string& type, ServerReflectionResponse* response) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  const Descriptor* message = pool.FindMessageTypeByName(type);
  if (message == nullptr) return SetNotFound(type, response);
  auto* numbers = response->mutable_all_extension_numbers_response();
  numbers->set_base_type_name(type);
  std::vector<const FieldDescriptor*> extensions;
  pool.FindAllExtensions(message, &extensions);
  for (const FieldDescriptor* extension : extensions) {
    numbers->add_extension_number(extension->number());
  }
}

void SetFileOfExtension(const std::string& type, int number, ServerReflectionResponse* response) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  const Descriptor* message = pool.FindMessageTypeByName(type);
  const FieldDescriptor* extension =
      message == nullptr ? nullptr : pool.FindExtensionByNumber(message, number);
  SetFile(extension == nullptr ? nullptr : extension->file(), absl::StrCat(type, " ", number),
          response);
}

class ReflectionSession final : public StreamSession {
 public:
  explicit ReflectionSession(const std::vector<std::string>& services) : services_(services) {}

  bool IsSmall(const grpc::ByteBuffer&) const override { return true; }

  absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time) override {
    ServerReflectionRequest request;
    GF_RETURN_IF_ERROR(ReadMessage(frame, kMaxRequestBytes, &request));
    ServerReflectionResponse response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    Answer(request, &response);
    return WriteMessage(response);
  }

 private:
  void Answer(const ServerReflectionRequest& request, ServerReflectionResponse* response) const {
    const DescriptorPool& pool = *DescriptorPool::generated_pool();
    switch (request.message_request_case()) {
      case ServerReflectionRequest::kFileByFilename:
        return SetFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(),
                       response);
      case ServerReflectionRequest::kFileContainingSymbol:
        return SetFile(pool.FindFileContainingSymbol(request.file_containing_symbol()),
                       request.file_containing_symbol(), response);
      case ServerReflectionRequest::kFileContainingExtension:
        return SetFileOfExtension(request.file_containing_extension().containing_type(),
                                  request.file_containing_extension().extension_number(), response);
      case ServerReflectionRequest::kAllExtensionNumbersOfType:
        return SetExtensionNumbers(request.all_extension_numbers_of_type(), response);
      case ServerReflectionRequest::kListServices:
        for (const std::string& name : services_) {
          response->mutable_list_services_response()->add_service()->set_name(name);
        }
        return;
      case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
        break;
    }
    response->mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
    response->mutable_error_response()->set_error_message("the request asks for nothing");
  }

  const std::vector<std::string>& services_;
};

class ReflectionHandler final : public StreamHandler {
 public:
  explicit ReflectionHandler(const RpcServer* server) : server_(server) {}

  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>&) override {
    if (services_.empty()) services_ = server_->ServiceNames();
    return std::make_unique<ReflectionSession>(services_);
  }
  // No frame ever waits.
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer&) override { return grpc::ByteBuffer(); }

 private:
  const RpcServer* const server_;
  std::vector<std::string> services_;  // does not change once the server runs
};

// A stream method that owns its handler.
class ReflectionMethod final : public ServerMethod {
 public:
  explicit ReflectionMethod(const RpcServer* server)
      : handler_(server), stream_(MakeStreamMethod(&handler_, Options())) {}

  std::shared_ptr<CallObserver> Accept(ServerCall* call,
                                       std::shared_ptr<CallContext> context) override {
    return stream_->Accept(call, std::move(context));
  }

 private:
  static StreamOptions Options() {
    StreamOptions options;
    options.n_workers = 0;
    options.max_streams = 16;
    return options;
  }

  ReflectionHandler handler_;
  const std::unique_ptr<ServerMethod> stream_;
};

}  // namespace

void AddReflection(RpcServer* server) {
  FindMethod(kService, kMethod);  // links its descriptor
  server->AddMethod(MethodPath(kService, kMethod), std::make_unique<ReflectionMethod>(server));
}

}  // namespace gatefold
