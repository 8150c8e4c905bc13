// Reading heads and bodies, sending answers, noticing clients that leave. Nothing here throws outwards.
#include "serve/http_connection.h"

#include <boost/beast/http.hpp>
#include <ctime>

#include "sys/clock.h"

namespace nautile::http {
namespace {

constexpr size_t kLingerBytes = 64 << 20;  // read and thrown away after a refusal, so that the answer arrives
constexpr double kLingerSeconds = 2;
constexpr size_t kChunkExtensionBytes = 256;

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return text;
}

// What a body has taken of the server's room.
struct BodyRoom {
  explicit BodyRoom(Host& its_host) : host(its_host) {}
  ~BodyRoom() { host.give_body(taken); }
  BodyRoom(const BodyRoom&) = delete;
  BodyRoom& operator=(const BodyRoom&) = delete;
  bool take(uint64_t bytes) {
    if (!host.take_body(bytes)) return false;
    taken += bytes;
    return true;
  }
  Host& host;
  uint64_t taken = 0;
};

// An answer under way, as long as it lives.
struct Answering {
  explicit Answering(Host& its_host) : host(its_host) { host.count_answering(1); }
  ~Answering() { host.count_answering(-1); }
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;
  Host& host;
};

}  // namespace

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
    connection_->host_.handler().decorate(request, response);
    status_ = response.status;
    close_ = close_ || response.close || (stream && request.http_1_0);
    chunked_ = stream && !request.http_1_0;
    out_ += "HTTP/1.1 " + std::to_string(response.status) + " " + reason_phrase(response.status) + "\r\n";
    out_ += "Server: " + connection_->host_.options().server_name + "\r\nDate: " + http_date() + "\r\n";
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

Connection::Connection(Host& host, tcp::socket socket, int listener, std::string peer)
    : host_(host),
      socket_(std::move(socket)),
      deadline_(host.context()),
      wake_(host.context()),
      listener_(listener),
      peer_(std::move(peer)) {}

Connection::~Connection() {
  host_.leave(peer_);
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
  arm(host_.options().idle_timeout_s);
  auto [error, bytes] = co_await socket_.async_read_some(buffer_.prepare(4096), kTuple);
  disarm();
  buffer_.commit(bytes);
  co_return !error && bytes > 0;
}

// The parser's reasons, as a client should read them.
std::optional<Fault> Connection::head_fault(const boost::system::error_code& error) const {
  if (error == wire::error::header_limit || error == wire::error::buffer_overflow) {
    const auto* bytes = static_cast<const char*>(buffer_.data().data());
    const std::string_view seen(bytes, std::min(buffer_.size(), host_.options().max_request_line));
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
  const ServerOptions& options = host_.options();
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
  const ServerOptions& options = host_.options();
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
  if (!fault) refusal = host_.handler().head(request);
  if (!fault && !refusal && request.content_length.value_or(0) > options.max_body) {
    fault = Fault{413, "request_too_large", "The body is larger than " + std::to_string(options.max_body) + " bytes."};
  }
  if (fault) refusal = host_.handler().fault(request, *fault);
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
    fault = co_await read_body(parser, request);
    if (fault) {
      if (fault->status != 0) co_await refuse(request, host_.handler().fault(request, *fault));
      co_return Next::kClose;
    }
  }
  auto answer = std::make_shared<Answer>(*this);
  answer->close_ = !parser.keep_alive();
  answer->request = std::move(request);
  answer->request.body = std::move(parser.get().body());
  host_.handler().handle(answer);
  co_return co_await serve(std::move(answer));
}

// Status 0: the client left.
awaitable<std::optional<Fault>> Connection::read_body(Parser& parser, Request& request) {
  const ServerOptions& options = host_.options();
  const Fault slow{408, "request_timeout", "The request body did not arrive in time."};
  const double begin = seconds_now();
  auto extension = [](uint64_t, std::string_view text, boost::system::error_code& error) {
    if (text.size() > kChunkExtensionBytes) error = wire::error::bad_chunk_extension;
  };
  parser.on_chunk_header(extension);
  parser.body_limit(options.max_body);
  parser.eager(true);
  uint64_t bytes = 0;
  const Fault full{503, "server_overloaded", "Too many large requests at once; try again soon."};
  const auto room = std::make_shared<BodyRoom>(host_);
  request.body_room = room;
  const bool counted = request.content_length.has_value();  // else it is counted as it comes
  if (counted && !room->take(*request.content_length)) co_return full;
  while (!parser.is_done()) {
    const double used = seconds_now() - begin;
    if (used >= options.body_timeout_s) co_return slow;
    if (used > 5 && static_cast<double>(bytes) < used * static_cast<double>(options.min_body_rate)) co_return slow;
    arm(options.body_timeout_s - used);
    auto [error, got] = co_await wire::async_read_some(socket_, buffer_, parser, kTuple);
    disarm();
    bytes += got;
    if (!counted && !room->take(got)) co_return full;
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
  const Answering answering(host_);
  if (!answer->ended_) {
    watching_ = true;
    asio::co_spawn(
        host_.context(), [self = shared_from_this(), answer] { return self->watch(answer); }, asio::detached);
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
      arm(host_.options().write_timeout_s);
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
    if (error == asio::error::eof && host_.options().allow_half_close) {
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

}  // namespace nautile::http
