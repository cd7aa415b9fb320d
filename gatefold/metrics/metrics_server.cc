#include "gatefold/metrics/metrics_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;

// A scraper that is slow to ask or to read is left, so that it does not keep others out.
constexpr std::chrono::seconds kPatience(10);
constexpr int kMaxConnections = 32;  // others wait to be accepted
constexpr size_t kMaxHeaderBytes = 8 << 10;
constexpr std::chrono::milliseconds kAcceptAgain(100);  // once descriptors have run out

// One request and its answer.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Tcp::socket socket, const std::function<std::string()>* text,
             std::function<void()> ended)
      : stream_(std::move(socket)), text_(text), ended_(std::move(ended)) {
    parser_.header_limit(kMaxHeaderBytes);
  }
  ~Connection() { ended_(); }

  void Serve() {
    stream_.expires_after(kPatience);
    http::async_read_header(stream_, received_, parser_,
                            [self = shared_from_this()](error_code failed, size_t) {
                              if (!failed) self->Answer();
                            });
  }

 private:
  void Answer() {
    const http::request<http::empty_body>& request = parser_.get();
    const absl::string_view target(request.target().data(), request.target().size());
    const bool head = request.method() == http::verb::head;
    answer_.version(11);
    answer_.keep_alive(false);
    answer_.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
    if (!head && request.method() != http::verb::get) {
      answer_.result(http::status::method_not_allowed);
      answer_.set(http::field::allow, "GET, HEAD");
    } else if (target.substr(0, target.find('?')) != "/metrics") {
      answer_.result(http::status::not_found);
      answer_.body() = "here is nothing but /metrics\n";
    } else {
      answer_.body() = (*text_)();
    }
    answer_.prepare_payload();
    if (head) answer_.body().clear();  // the length stays
    stream_.expires_after(kPatience);
    http::async_write(stream_, answer_, [self = shared_from_this()](error_code, size_t) {
      error_code ignored;
      self->stream_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
    });
  }

  boost::beast::tcp_stream stream_;
  const std::function<std::string()>* const text_;
  const std::function<void()> ended_;
  boost::beast::flat_buffer received_;
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> answer_;
};

}  // namespace

class MetricsServer::Listener {
 public:
  explicit Listener(std::function<std::string()> text) : text_(std::move(text)) {}

  ~Listener() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    n_connections_ = 0;  // those that end now, with io_, make room for no others
  }

  error_code Listen(const asio::ip::address& address, uint16_t port) {
    if (address != asio::ip::address_v4::any()) return Bind({address, port});
    const error_code failed = Bind({asio::ip::address_v6::any(), port});
    const bool no_ipv6 = failed == asio::error::address_family_not_supported ||
                         failed == boost::system::errc::address_not_available;
    return no_ipv6 ? Bind({address, port}) : failed;
  }

  void Start() {
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }

  int port() const { return port_; }

 private:
  error_code Bind(const Tcp::endpoint& endpoint) {
    error_code failed;
    acceptor_.close(failed);
    if (acceptor_.open(endpoint.protocol(), failed)) return failed;
    acceptor_.set_option(asio::socket_base::reuse_address(true), failed);
    if (endpoint.protocol() == Tcp::v6()) {
      acceptor_.set_option(asio::ip::v6_only(!endpoint.address().is_unspecified()), failed);
    }
    if (!failed) acceptor_.bind(endpoint, failed);
    if (!failed) acceptor_.listen(asio::socket_base::max_listen_connections, failed);
    if (!failed) port_ = acceptor_.local_endpoint(failed).port();
    return failed;
  }

  void Accept() {
    acceptor_.async_accept([this](error_code failed, Tcp::socket socket) {
      if (failed) {
        again_.expires_after(kAcceptAgain);
        again_.async_wait([this](error_code) { Accept(); });
        return;
      }
      ++n_connections_;
      const auto ended = [this] {
        if (n_connections_-- == kMaxConnections) Accept();
      };
      std::make_shared<Connection>(std::move(socket), &text_, ended)->Serve();
      if (n_connections_ < kMaxConnections) Accept();
    });
  }

  const std::function<std::string()> text_;
  int n_connections_ = 0;
  int port_ = 0;
  asio::io_context io_{1};
  Tcp::acceptor acceptor_{io_};
  asio::steady_timer again_{io_};
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(absl::string_view host,
                                                                    int port,
                                                                    const Registry& registry) {
  error_code failed;
  const asio::ip::address address = asio::ip::make_address(std::string(host), failed);
  if (failed) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics host is \"", host, "\", must be an IP address"));
  }
  if (port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics port is ", port, ", must be within 0 and 65535"));
  }
  auto listener = std::make_unique<Listener>(registry.Reader());
  if (failed = listener->Listen(address, port); failed) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", host, ":", port,
                                               "; is the port taken? (", failed.message(), ")"));
  }
  listener->Start();
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::string(host), std::move(listener)));
}

MetricsServer::MetricsServer(std::string host, std::unique_ptr<Listener> listener)
    : host_(std::move(host)), listener_(std::move(listener)) {}

MetricsServer::~MetricsServer() = default;

int MetricsServer::port() const { return listener_->port(); }

std::string MetricsServer::address() const {
  return absl::StrContains(host_, ':') ? absl::StrCat("[", host_, "]:", port())
                                       : absl::StrCat(host_, ":", port());
}

}  // namespace gatefold
