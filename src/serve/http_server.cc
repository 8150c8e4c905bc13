// The server: listeners, accepting, signals, the loop.
#include <algorithm>
#include <atomic>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <exception>
#include <unordered_map>

#include "serve/http_connection.h"

namespace nautile::http {
namespace {

class OneTimer final : public Timer {
 public:
  OneTimer(asio::io_context& context, double seconds, std::function<void()> work) : timer_(context, span_of(seconds)) {
    timer_.async_wait([work = std::move(work)](const boost::system::error_code& error) {
      if (!error) work();
    });
  }

 private:
  asio::steady_timer timer_;
};

class Core final : public Server, public Loop, public Host {
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
  size_t answering() const override { return answering_; }

  void post(std::function<void()> work) override { asio::post(context_, std::move(work)); }
  void after(double seconds, std::function<void()> work) override {
    auto timer = std::make_shared<asio::steady_timer>(context_, span_of(seconds));
    timer->async_wait([timer, work = std::move(work)](const boost::system::error_code& error) {
      if (!error) work();
    });
  }

  std::unique_ptr<Timer> timer(double seconds, std::function<void()> work) override {
    return std::make_unique<OneTimer>(context_, seconds, std::move(work));
  }

  void leave(const std::string& peer) override {
    --open_;
    const auto found = per_address_.find(peer);
    if (found != per_address_.end() && --found->second == 0) per_address_.erase(found);
    room_.cancel();
  }
  void count_answering(int change) override { answering_ += static_cast<size_t>(change); }
  bool take_body(uint64_t bytes) override {
    if (bodies_ + bytes > std::max(options_.max_bodies, options_.max_body)) return false;
    bodies_ += bytes;
    return true;
  }
  void give_body(uint64_t bytes) override { bodies_ -= bytes; }
  const ServerOptions& options() const override { return options_; }
  Handler& handler() override { return handler_; }
  asio::io_context& context() override { return context_; }

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
      asio::co_spawn(
          context_, [connection] { return connection->run(); }, asio::detached);
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
  size_t open_ = 0, answering_ = 0;
  std::atomic<uint64_t> bodies_{0};  // given back by whichever thread drops a request last
  std::unordered_map<std::string, size_t> per_address_;
  asio::io_context context_{1};
  asio::steady_timer room_{context_};
  std::vector<tcp::acceptor> acceptors_;
};

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
