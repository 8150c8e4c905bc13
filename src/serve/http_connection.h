// A connection and what it needs of its server. For http_server.cc and http_connection.cc alone: this header brings
// Asio and Beast in.
//
// One coroutine a connection, one io thread. A connection reads a head, asks the handler, reads the body, hands the
// exchange over and sends whatever the handler writes. While the handler works, a second coroutine reads: an end of
// file there means that the client left; bytes are the next request and stay in the buffer. One timer guards whatever
// is being waited for; when it fires, the socket's pending operation is cancelled and `expired_` says so.
// Thread-safety: the io thread.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "serve/http.h"

namespace nautile::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace wire = boost::beast::http;
using asio::awaitable;
using asio::ip::tcp;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kBufferBytes = 256 << 10;  // unread input of one connection

using Parser = wire::request_parser<wire::string_body>;

inline std::chrono::nanoseconds span_of(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

// What a connection asks of its server.
class Host {
 public:
  virtual ~Host() = default;
  virtual void leave(const std::string& peer) = 0;
  virtual void count_answering(int change) = 0;
  // Bytes of a body: false when there is no room for them.
  virtual bool take_body(uint64_t bytes) = 0;
  virtual void give_body(uint64_t bytes) = 0;
  virtual const ServerOptions& options() const = 0;
  virtual Handler& handler() = 0;
  virtual asio::io_context& context() = 0;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Host& host, tcp::socket socket, int listener, std::string peer);
  ~Connection();
  awaitable<void> run();

 private:
  class Answer;
  enum class Next { kKeep, kClose };

  awaitable<bool> first_byte();
  awaitable<Next> one_request();
  awaitable<std::optional<Fault>> read_body(Parser& parser, Request& request);
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

  Host& host_;
  tcp::socket socket_;
  beast::flat_buffer buffer_{kBufferBytes};
  asio::steady_timer deadline_, wake_;
  uint64_t guard_ = 0;    // which wait the deadline belongs to
  bool expired_ = false;  // the last wait ended by the deadline
  bool watching_ = false;
  int listener_;
  std::string peer_;
};

}  // namespace nautile::http
