// The server on Asio and Beast: one coroutine a connection, one io thread.
//
// A connection reads a head, asks the handler, reads the body, hands the exchange over and sends whatever the handler
// writes. While the handler works, a second coroutine reads: an end of file there means that the client left; bytes are
// the next request and stay in the buffer. One timer guards whatever is being waited for; when it fires, the socket's
// pending operation is cancelled and `expired_` says so. Nothing here throws outwards.
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <csignal>
#include <ctime>
#include <exception>
#include <unordered_map>

#include "serve/http.h"
#include "sys/clock.h"

namespace nautile::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace wire = boost::beast::http;
using asio::awaitable;
using asio::ip::tcp;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kBufferBytes = 256 << 10;         // unread input of one connection
constexpr size_t kLingerBytes = 64 << 20;          // read and thrown away after a refusal, so that the answer arrives
constexpr double kLingerSeconds = 2;
constexpr size_t kChunkExtensionBytes = 256;

using Parser = wire::request_parser<wire::string_body>;

std::chrono::nanoseconds span_of(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text;
}

class Core;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Core& core, tcp::socket socket, int listener, std::string peer);
  ~Connection();
  awaitable<void> run();

 private:
  class Answer;
  enum class Next { kKeep, kClose };

  awaitable<bool> first_byte();
  awaitable<Next> one_request();
  awaitable<std::optional<Fault>> read_body(Parser& parser);
  awaitable<Next> serve(std::shared_ptr<Answer> answer);
  awaitable<bool> send(Answer& answer, std::string bytes);
  awaitable<void> watch(std::shared_ptr<Answer> answer);
  awaitable<void> refuse(const Request& request, Response response);
  awaitable<void> linger();
  std::optional<Fault> head_fault(const boost::system::error_code& error) const;
  std::optional<Fault> take_head(Parser& parser, Request& request) const;
  void lose(Answer& answer);
  void arm(double seconds);
  void disarm();

  Core& core_;
  tcp::socket socket_;
  beast::flat_buffer buffer_{kBufferBytes};
  asio::steady_timer deadline_, wake_;
  uint64_t guard_ = 0;    // which wait the deadline belongs to
  bool expired_ = false;  // the last wait ended by the deadline
  bool watching_ = false;
  int listener_;
  std::string peer_;
};

class Core final : public Server, public Loop {
 public:
  Core(ServerOptions options, Handler& handler) : options_(std::move(options)), handler_(handler) {}

  Status bind() {
    for (const Listener& listener : options_.listeners) {
      boost::system::error_code error;
      const std::string host = listener.host == "localhost" ? "127.0.0.1" : listener.host;
      const auto address = asio::ip::make_address(host, error);
      const std::string where = listener.host + ":" + std::to_string(listener.port);
      if (error) return {Code::kInvalidArgument, "the host is not an address", where, "give one such as 127.0.0.1"};
      tcp::acceptor acceptor(context_);
      const tcp::endpoint endpoint(address, static_cast<uint16_t>(listener.port));
      acceptor.open(endpoint.protocol(), error);
      if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
      if (!error) acceptor.bind(endpoint, error);
      if (!error) acceptor.listen(1024, error);
      if (error) return {Code::kIo, "cannot listen: " + error.message(), where, "choose another --port or --host"};
      acceptors_.push_back(std::move(acceptor));
    }
    return {};
  }

  void run() override {
    for (size_t i = 0; i < acceptors_.size(); ++i) {
      asio::co_spawn(context_, accept(acceptors_[i], static_cast<int>(i)), asio::detached);
    }
    asio::co_spawn(context_, signals(), asio::detached);
    for (;;) {
      try {
        context_.run();
        return;
      } catch (const std::exception&) {
        // A callback's fault must not end the service; the connection it belonged to is gone.
      }
    }
  }
  void stop() override { context_.stop(); }
  Loop& loop() override { return *this; }
  int port(int listener) const override { return acceptors_[listener].local_endpoint().port(); }
  size_t open_connections() const override { return open_; }

  void post(std::function<void()> work) override { asio::post(context_, std::move(work)); }
  void after(double seconds, std::function<void()> work) override {
    auto timer = std::make_shared<asio::steady_timer>(context_, span_of(seconds));
    timer->async_wait([timer, work = std::move(work)](const boost::system::error_code& error) {
      if (!error) work();
    });
  }

  void leave(const std::string& peer) {
    --open_;
    const auto found = per_address_.find(peer);
    if (found != per_address_.end() && --found->second == 0) per_address_.erase(found);
    room_.cancel();
  }
  const ServerOptions& options() const { return options_; }
  Handler& handler() { return handler_; }
  asio::io_context& context() { return context_; }

 private:
  awaitable<void> accept(tcp::acceptor& acceptor, int listener) {
    for (;;) {
      while (open_ >= options_.max_connections) {
        room_.expires_after(std::chrono::seconds(1));
        co_await room_.async_wait(kTuple);
      }
      auto [error, socket] = co_await acceptor.async_accept(kTuple);
      if (error) {  // out of descriptors, or the peer left at once
        asio::steady_timer pause(context_, std::chrono::milliseconds(50));
        co_await pause.async_wait(kTuple);
        continue;
      }
      const auto remote = socket.remote_endpoint(error);
      if (error) continue;
      const std::string peer = remote.address().to_string();
      size_t& count = per_address_[peer];
      if (count >= options_.max_per_address) continue;
      ++count;
      ++open_;
      socket.set_option(tcp::no_delay(true), error);
      auto connection = std::make_shared<Connection>(*this, std::move(socket), listener, peer);
      asio::co_spawn(context_, [connection] { return connection->run(); }, asio::detached);
    }
  }
  awaitable<void> signals() {
    asio::signal_set set(context_, SIGINT, SIGTERM, SIGHUP);
    for (;;) {
      auto [error, signal] = co_await set.async_wait(kTuple);
      if (error) co_return;
      handler_.on_signal(signal);
    }
  }

  ServerOptions options_;
  Handler& handler_;
  size_t open_ = 0;
  std::unordered_map<std::string, size_t> per_address_;
  asio::io_context context_{1};
  asio::steady_timer room_{context_};
  std::vector<tcp::acceptor> acceptors_;
};

// The answer to one request: what the handler writes waits here for the socket.
class Connection::Answer final : public Exchange {
 public:
  explicit Answer(Connection& connection) : connection_(&connection) {}

  void respond(Response response) override {
    if (closed()) return;
    head(std::move(response), false);
    ended_ = true;
    wake();
  }
  void start_stream(Response response) override {
    if (closed()) return;
    head(std::move(response), true);
    streams_ = true;
    wake();
  }
  void write(std::string_view bytes) override {
    if (closed() || bytes.empty() || request.head_only) return;
    if (chunked_) {
      char size[20];
      out_.append(size, std::snprintf(size, sizeof size, "%zx\r\n", bytes.size()));
    }
    out_ += bytes;
    if (chunked_) out_ += "\r\n";
    wake();
  }
  void end() override {
    if (closed()) return;
    if (chunked_ && !request.head_only) out_ += "0\r\n\r\n";
    ended_ = true;
    wake();
  }
  size_t unsent() const override { return out_.size() + sending_; }
  bool gone() const override { return connection_ == nullptr; }
  int status() const override { return status_; }

 private:
  friend class Connection;
  bool closed() const { return connection_ == nullptr || ended_; }
  void wake() { connection_->wake_.cancel(); }

  void head(Response response, bool stream) {
    connection_->core_.handler().decorate(request, response);
    status_ = response.status;
    close_ = close_ || response.close || (stream && request.http_1_0);
    chunked_ = stream && !request.http_1_0;
    out_ += "HTTP/1.1 " + std::to_string(response.status) + " " + reason_phrase(response.status) + "\r\n";
    out_ += "Server: " + connection_->core_.options().server_name + "\r\nDate: " + http_date() + "\r\n";
    if (!response.type.empty()) out_ += "Content-Type: " + response.type + "\r\n";
    for (const Header& header : response.headers) out_ += header.name + ": " + header.value + "\r\n";
    if (chunked_) {
      out_ += "Transfer-Encoding: chunked\r\n";
    } else if (!stream && response.status != 204) {
      out_ += "Content-Length: " + std::to_string(response.body.size()) + "\r\n";
    }
    if (close_) {
      out_ += "Connection: close\r\n";
    } else if (request.http_1_0) {
      out_ += "Connection: keep-alive\r\n";
    }
    out_ += "\r\n";
    if (!request.head_only) out_ += response.body;
  }

  Connection* connection_;  // null once the client is gone or the answer has left
  std::string out_;
  size_t sending_ = 0;
  int status_ = 0;
  bool chunked_ = false, streams_ = false, ended_ = false, close_ = false;
};

Connection::Connection(Core& core, tcp::socket socket, int listener, std::string peer)
    : core_(core),
      socket_(std::move(socket)),
      deadline_(core.context()),
      wake_(core.context()),
      listener_(listener),
      peer_(std::move(peer)) {}

Connection::~Connection() {
  core_.leave(peer_);
}

void Connection::arm(double seconds) {
  expired_ = false;
  deadline_.expires_after(span_of(seconds));
  deadline_.async_wait([self = weak_from_this(), guard = ++guard_](const boost::system::error_code& error) {
    const auto connection = self.lock();
    if (error || !connection || connection->guard_ != guard) return;
    connection->expired_ = true;
    boost::system::error_code ignored;
    connection->socket_.cancel(ignored);
  });
}

void Connection::disarm() {
  ++guard_;
  deadline_.cancel();
}

awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  for (;;) {
    if (!co_await first_byte()) break;
    if (co_await one_request() == Next::kClose) break;
  }
  boost::system::error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

awaitable<bool> Connection::first_byte() {
  if (buffer_.size() > 0) co_return true;
  arm(core_.options().idle_timeout_s);
  auto [error, bytes] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
  disarm();
  buffer_.commit(bytes);
  co_return !error && bytes > 0;
}

// The parser's reasons, as a client should read them.
std::optional<Fault> Connection::head_fault(const boost::system::error_code& error) const {
  if (error == wire::error::header_limit || error == wire::error::buffer_overflow) {
    const auto* bytes = static_cast<const char*>(buffer_.data().data());
    const std::string_view seen(bytes, std::min(buffer_.size(), core_.options().max_request_line));
    if (seen.find('\n') == std::string_view::npos) return Fault{414, "uri_too_long", "The request line is too long."};
    return Fault{431, "headers_too_large", "The request headers are too large."};
  }
  if (error.category() == wire::make_error_code(wire::error::bad_field).category() &&
      error != wire::error::end_of_stream && error != wire::error::partial_message) {
    return Fault{400, "invalid_http", "The request is not valid HTTP/1.1: " + error.message() + "."};
  }
  return std::nullopt;  // the client left
}

std::optional<Fault> Connection::take_head(Parser& parser, Request& request) const {
  const auto& message = parser.get();
  const ServerOptions& options = core_.options();
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  request.http_1_0 = message.version() == 10;
  request.path = route_path(request.target);
  request.peer = peer_;
  request.listener = listener_;
  request.arrived_s = seconds_now();
  size_t total = 0, hosts = 0, lengths = 0, encodings = 0;
  for (const auto& field : message) {
    const std::string_view name = field.name_string(), value = field.value();
    total += name.size() + value.size() + 4;
    hosts += same_name(name, "host");
    lengths += same_name(name, "content-length");
    encodings += same_name(name, "transfer-encoding");
    if (name.size() + value.size() > options.max_header) {
      return Fault{431, "headers_too_large", "A request header is too large."};
    }
    request.headers.push_back({std::string(name), std::string(value)});
  }
  request.id = request_id(request.header("x-request-id").empty() ? request.header("request-id")
                                                                 : request.header("x-request-id"));
  if (request.method == "HEAD") {
    request.method = "GET";
    request.head_only = true;
  }
  request.chunked = parser.chunked();
  if (const auto length = parser.content_length()) request.content_length = *length;
  if (request.target.size() + request.method.size() + 11 > options.max_request_line) {
    return Fault{414, "uri_too_long", "The request line is too long."};
  }
  if (request.headers.size() > options.max_header_count || total > options.max_headers) {
    return Fault{431, "headers_too_large", "The request headers are too large or too many."};
  }
  if (message.version() != 10 && message.version() != 11) {
    return Fault{400, "invalid_http", "Only HTTP/1.0 and HTTP/1.1 are spoken here."};
  }
  if (hosts > 1 || (hosts == 0 && message.version() == 11)) {
    return Fault{400, "invalid_http", "An HTTP/1.1 request needs exactly one Host header."};
  }
  if (lengths > 1 || encodings > 1 || (lengths > 0 && encodings > 0)) {
    return Fault{400, "invalid_http", "The body's length is given more than once."};
  }
  if (encodings > 0 && (!same_name(request.header("transfer-encoding"), "chunked") || request.http_1_0)) {
    return Fault{400, "invalid_http", "The only transfer encoding is chunked, and only in HTTP/1.1."};
  }
  return std::nullopt;
}

awaitable<Connection::Next> Connection::one_request() {
  const ServerOptions& options = core_.options();
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options.max_request_line + options.max_headers));
  parser.body_limit(boost::none);  // checked below, where it can be answered
  Request request;
  request.peer = peer_;
  request.listener = listener_;

  arm(options.header_timeout_s);
  auto [error, ignored] = co_await wire::async_read_header(socket_, buffer_, parser, kTuple);
  disarm();
  std::optional<Fault> fault;
  if (error) {
    fault = expired_ ? Fault{408, "request_timeout", "The request headers did not arrive in time."} : head_fault(error);
    if (!fault) co_return Next::kClose;
    request.id = request_id({});
  } else {
    fault = take_head(parser, request);
  }
  std::optional<Response> refusal;
  if (!fault) refusal = core_.handler().head(request);
  if (!fault && !refusal && request.content_length.value_or(0) > options.max_body) {
    fault = Fault{413, "request_too_large", "The body is larger than " + std::to_string(options.max_body) + " bytes."};
  }
  if (fault) refusal = core_.handler().fault(request, *fault);
  if (refusal && !fault && !request.has_body()) {
    // Nothing more to read: the connection can go on.
    auto answer = std::make_shared<Answer>(*this);
    answer->close_ = !parser.keep_alive();
    answer->request = std::move(request);
    answer->respond(std::move(*refusal));
    co_return co_await serve(std::move(answer));
  }
  if (refusal) {
    co_await refuse(request, std::move(*refusal));
    co_return Next::kClose;
  }

  if (!parser.is_done() && same_name(request.header("expect"), "100-continue")) {
    static constexpr std::string_view kGoOn = "HTTP/1.1 100 Continue\r\n\r\n";
    arm(options.write_timeout_s);
    auto [failed, sent] = co_await socket_.async_write_some(asio::buffer(kGoOn), kTuple);
    disarm();
    if (failed || sent != kGoOn.size()) co_return Next::kClose;
  }
  if (!parser.is_done()) {
    fault = co_await read_body(parser);
    if (fault) {
      if (fault->status != 0) co_await refuse(request, core_.handler().fault(request, *fault));
      co_return Next::kClose;
    }
  }
  auto answer = std::make_shared<Answer>(*this);
  answer->close_ = !parser.keep_alive();
  answer->request = std::move(request);
  answer->request.body = std::move(parser.get().body());
  core_.handler().handle(answer);
  co_return co_await serve(std::move(answer));
}

// Status 0: the client left.
awaitable<std::optional<Fault>> Connection::read_body(Parser& parser) {
  const ServerOptions& options = core_.options();
  const Fault slow{408, "request_timeout", "The request body did not arrive in time."};
  const double begin = seconds_now();
  auto extension = [](uint64_t, std::string_view text, boost::system::error_code& error) {
    if (text.size() > kChunkExtensionBytes) error = wire::error::bad_chunk_extension;
  };
  parser.on_chunk_header(extension);
  parser.body_limit(options.max_body);
  parser.eager(true);
  uint64_t bytes = 0;
  while (!parser.is_done()) {
    const double used = seconds_now() - begin;
    if (used >= options.body_timeout_s) co_return slow;
    if (used > 5 && static_cast<double>(bytes) < used * static_cast<double>(options.min_body_rate)) co_return slow;
    arm(options.body_timeout_s - used);
    auto [error, got] = co_await wire::async_read_some(socket_, buffer_, parser, kTuple);
    disarm();
    bytes += got;
    if (!error) continue;
    if (expired_) co_return slow;
    if (error == wire::error::body_limit) {
      co_return Fault{413, "request_too_large",
                      "The body is larger than " + std::to_string(options.max_body) + " bytes."};
    }
    if (auto fault = head_fault(error)) co_return fault;
    co_return Fault{0, "", ""};
  }
  co_return std::nullopt;
}

// Sends what the handler writes until it has ended or the client is gone.
awaitable<Connection::Next> Connection::serve(std::shared_ptr<Answer> answer) {
  if (!answer->ended_) {
    watching_ = true;
    asio::co_spawn(core_.context(), [self = shared_from_this(), answer] { return self->watch(answer); },
                   asio::detached);
  }
  double last_sent = seconds_now();
  while (!answer->gone()) {
    if (!answer->out_.empty()) {
      std::string bytes;
      bytes.swap(answer->out_);
      answer->sending_ = bytes.size();
      if (!co_await send(*answer, std::move(bytes))) {
        if (!answer->gone()) lose(*answer);
        break;
      }
      last_sent = seconds_now();
      if (answer->out_.empty() && !answer->ended_ && answer->on_drained) {
        const auto call = answer->on_drained;  // which may be replaced by what it does
        call();
      }
      continue;
    }
    if (answer->ended_) break;
    const bool ticks = answer->streams_ && answer->idle_s > 0 && answer->on_idle;
    const double left = ticks ? last_sent + answer->idle_s - seconds_now() : 3600;
    if (ticks && left <= 0) {
      const auto call = answer->on_idle;
      answer->write(call());
      last_sent = seconds_now();
      continue;
    }
    wake_.expires_after(span_of(left));
    co_await wake_.async_wait(kTuple);
  }
  const bool gone = answer->gone();
  answer->connection_ = nullptr;
  if (!gone && answer->on_sent) {
    const auto call = answer->on_sent;
    call();
  }
  answer->on_gone = nullptr;
  answer->on_drained = answer->on_sent = nullptr;
  answer->on_idle = nullptr;
  if (watching_) {
    boost::system::error_code ignored;
    socket_.cancel(ignored);
    while (watching_) {
      wake_.expires_after(std::chrono::hours(1));
      co_await wake_.async_wait(kTuple);
    }
  }
  co_return gone || answer->close_ ? Next::kClose : Next::kKeep;
}

// False when the client is gone or takes nothing any more.
awaitable<bool> Connection::send(Answer& answer, std::string bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    // Try at once: nearly always the socket has room, and no wait is needed.
    boost::system::error_code error;
    if (!socket_.non_blocking()) socket_.non_blocking(true, error);
    size_t n = socket_.write_some(asio::buffer(bytes.data() + sent, bytes.size() - sent), error);
    if (error == asio::error::would_block || error == asio::error::try_again) {
      arm(core_.options().write_timeout_s);
      auto [failed] = co_await socket_.async_wait(tcp::socket::wait_write, kTuple);
      disarm();
      if (answer.gone() || failed) co_return false;
      continue;
    }
    if (error) co_return false;
    sent += n;
    answer.sending_ -= n;
  }
  co_return !answer.gone();
}

// Notices a client that leaves while its request is worked on; keeps what it sends for the next request.
awaitable<void> Connection::watch(std::shared_ptr<Answer> answer) {
  while (!answer->gone() && !answer->ended_ && buffer_.size() + 4096 <= kBufferBytes / 4) {
    auto [error, bytes] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
    buffer_.commit(bytes);
    if (answer->gone() || (answer->ended_ && error == asio::error::operation_aborted)) break;
    if (error == asio::error::operation_aborted && !expired_) break;
    if (error == asio::error::eof && core_.options().allow_half_close) {
      answer->close_ = true;
      break;
    }
    if (error) {
      lose(*answer);
      break;
    }
  }
  watching_ = false;
  wake_.cancel();
}

void Connection::lose(Answer& answer) {
  answer.connection_ = nullptr;
  boost::system::error_code ignored;
  socket_.cancel(ignored);
  wake_.cancel();
  if (answer.on_gone) {
    auto call = std::move(answer.on_gone);
    answer.on_gone = nullptr;
    call();
  }
}

// An answer before the body was read: it says so and closes, but first takes what the client is still sending, since
// closing on unread bytes would reset the connection and lose the answer.
awaitable<void> Connection::refuse(const Request& request, Response response) {
  auto answer = std::make_shared<Answer>(*this);
  answer->request = request;
  answer->request.head_only = request.head_only;
  answer->close_ = true;
  answer->respond(std::move(response));
  co_await serve(answer);
  co_await linger();
}

awaitable<void> Connection::linger() {
  boost::system::error_code error;
  socket_.shutdown(tcp::socket::shutdown_send, error);
  size_t seen = 0;
  char sink[16384];
  const double until = seconds_now() + kLingerSeconds;
  while (!error && seen < kLingerBytes && seconds_now() < until) {
    arm(until - seconds_now());
    auto [failed, bytes] = co_await socket_.async_read_some(asio::buffer(sink), kTuple);
    disarm();
    if (failed) break;
    seen += bytes;
  }
}

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(ServerOptions options, Handler& handler) {
  try {
    auto core = std::make_unique<Core>(std::move(options), handler);
    NAUTILE_RETURN_IF_ERROR(core->bind());
    return std::unique_ptr<Server>(std::move(core));
  } catch (const std::exception& error) {
    return Status(Code::kIo, std::string("the network cannot be used: ") + error.what());
  }
}

}  // namespace nautile::http
