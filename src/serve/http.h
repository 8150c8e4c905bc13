// The HTTP/1.1 server as the rest of serve sees it: requests in, whole or streamed answers out, one io thread.
//
// The wire is this room's only: framing, limits, timeouts, keep-alive, chunked bodies, disconnects, slow readers. It
// knows no route and no dialect; a Handler decides. Nothing of Asio or Beast is visible here (http_server.cc has it
// all).
// Thread-safety: Handler and Exchange are used on the io thread alone; Loop::post and Server::stop from any thread.
// Source: spec api.md section 2.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace nautile::http {

struct Header {
  std::string name, value;
};

struct Request {
  std::string method;      // HEAD arrives as GET with head_only
  bool head_only = false;  // the answer's body is not sent
  bool http_1_0 = false;
  std::string target;  // as sent
  std::string path;    // the target without its query and without one trailing slash
  std::vector<Header> headers;
  std::string body;
  std::shared_ptr<void> body_room;  // what the body takes of ServerOptions::max_bodies, until the last owner drops it
  std::optional<uint64_t> content_length;
  bool chunked = false;
  std::string id;    // X-Request-Id as taken over or made
  std::string peer;  // the address
  int listener = 0;  // index into ServerOptions::listeners
  double arrived_s = 0;

  // Empty when absent. Names are compared without case.
  std::string_view header(std::string_view name) const;
  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
};

struct Response {
  int status = 200;
  std::vector<Header> headers{};
  std::string body{};
  std::string type = "application/json";  // none when empty
  bool close = false;                     // the connection, after this answer
};

// What can be wrong with a request before anyone looked at what it asks for.
struct Fault {
  int status;        // 400, 408, 413, 414, 431, 503
  const char* code;  // as in error bodies
  std::string message;
};

// One request and its answer. Lives as long as either side needs it; after `gone` or the end, writes go nowhere.
class Exchange {
 public:
  virtual ~Exchange() = default;
  Request request;

  // The whole answer at once.
  virtual void respond(Response response) = 0;
  // Or in pieces: the head, any number of writes, the end.
  virtual void start_stream(Response head) = 0;
  virtual void write(std::string_view bytes) = 0;
  virtual void end() = 0;
  // Bytes that were written and have not left yet; a producer should pause when it is large.
  virtual size_t unsent() const = 0;
  virtual bool gone() const = 0;
  virtual int status() const = 0;  // of the answer, 0 before it

  std::function<void()> on_gone;         // the client left or reads no more: once, never after the end
  std::function<void()> on_drained;      // unsent() has become 0
  std::function<void()> on_sent;         // the whole answer has left
  std::function<std::string()> on_idle;  // bytes to send when a stream was silent for `idle_s`
  double idle_s = 0;                     // 0: never
};

class Handler {
 public:
  virtual ~Handler() = default;
  // The head of a request is there, its body not yet read: an answer refuses it now.
  virtual std::optional<Response> head(const Request& request) = 0;
  virtual void handle(std::shared_ptr<Exchange> exchange) = 0;
  virtual Response fault(const Request& request, const Fault& fault) = 0;
  // Headers that go on every answer.
  virtual void decorate(const Request& request, Response& response) = 0;
  virtual void on_signal(int signal) = 0;
};

struct Listener {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: any free one
};

struct ServerOptions {
  std::vector<Listener> listeners;
  // Bytes of the request line, of one header and of all; how many.
  size_t max_request_line = 8 << 10, max_header = 16 << 10, max_headers = 32 << 10, max_header_count = 100;
  uint64_t max_body = 32 << 20;             // bytes, as in the next
  uint64_t max_bodies = uint64_t{1} << 30;  // of all requests being read or waiting to be parsed together
  size_t max_connections = 4096, max_per_address = 256;
  size_t max_unsent = 1 << 20;  // bytes of one stream: the producer's mark, not a hard limit
  double header_timeout_s = 10, body_timeout_s = 60, idle_timeout_s = 75, write_timeout_s = 60;
  uint64_t min_body_rate = 1 << 10;  // bytes/s
  bool allow_half_close = false;
  std::string server_name = "nautile";
};

// A call that is to come; destroying it calls it off.
class Timer {
 public:
  virtual ~Timer() = default;
};

// The io thread's work queue.
class Loop {
 public:
  virtual ~Loop() = default;
  virtual void post(std::function<void()> work) = 0;
  // From the io thread. The work is dropped when the loop stops first.
  virtual void after(double seconds, std::function<void()> work) = 0;
  // The same for a call that may be called off, on the io thread.
  virtual std::unique_ptr<Timer> timer(double seconds, std::function<void()> work) = 0;
};

class Server {
 public:
  virtual ~Server() = default;
  // Binds every listener. kInvalidArgument (no address) or kIo, naming it.
  static Result<std::unique_ptr<Server>> listen(ServerOptions options, Handler& handler);

  virtual Loop& loop() = 0;
  virtual int port(int listener = 0) const = 0;
  // Serves on the calling thread until stop().
  virtual void run() = 0;
  virtual void stop() = 0;
  virtual size_t open_connections() const = 0;
  // Requests that have been handed over and whose answer has not left whole.
  virtual size_t answering() const = 0;
};

// For other files and tests.
bool same_name(std::string_view a, std::string_view b);  // without case, ASCII
// A request id from the client if it may be shown and logged, else a new one.
std::string request_id(std::string_view from_client);
// `bytes` random bytes as lower-case hex.
std::string random_hex(size_t bytes);
// The path of a target: query cut off, one trailing slash dropped. Empty for what is never a route: "//", "..", an
// encoded slash, another form than "/...".
std::string route_path(std::string_view target);
const char* reason_phrase(int status);

}  // namespace nautile::http
