// A raw load client for `nautile serve`: epoll, raw sockets, one thread, and no JSON parsing of an event, so that it
// takes little from the server on the same cores. Reports tokens/s, time to first token (TTFT), time per output token
// (TPOT) and, given --pid, where the server's processor time went.
//
//   serve_load --port 8000 --streams 8 --tokens 256 --rounds 4 [--pid PID]      closed: each stream asks again when
//   done serve_load --port 8000 --rate 900 --seconds 300 --tokens 256 [--pid PID]    open: so many requests a second,
//   come what may serve_load --port 8000 --idle 2000 --pid PID                                idle keep-alive
//   connections and memory
//
// Every answer has exactly --tokens tokens (ignore_eos), so events need not be counted one for one: text that a token
// does not finish (half a code point) has no event of its own. Prints one JSON object.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sys/clock.h"

namespace nautile {
namespace {

struct Options {
  int port = 8000, streams = 8, tokens = 128, rounds = 1, idle = 0, pid = 0, most = 3000;
  double rate = 0, seconds = 0;
  std::string path = "/v1/chat/completions", extra, header;
};

[[noreturn]] void usage(const std::string& what) {
  fmt::print(
      stderr,
      "serve_load: {}\nflags: --port N --streams N --tokens N --rounds N --rate PER_S --seconds N --idle N --pid N\n"
      "       --most CONNECTIONS --extra JSON_MEMBERS --header LINE\n",
      what);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc) usage(name + " needs a value");
    const char* value = argv[i + 1];
    if (name == "--port")
      o.port = std::atoi(value);
    else if (name == "--streams")
      o.streams = std::atoi(value);
    else if (name == "--tokens")
      o.tokens = std::atoi(value);
    else if (name == "--rounds")
      o.rounds = std::atoi(value);
    else if (name == "--rate")
      o.rate = std::atof(value);
    else if (name == "--seconds")
      o.seconds = std::atof(value);
    else if (name == "--idle")
      o.idle = std::atoi(value);
    else if (name == "--pid")
      o.pid = std::atoi(value);
    else if (name == "--most")
      o.most = std::atoi(value);
    else if (name == "--extra")
      o.extra = value;
    else if (name == "--header")
      o.header = value;
    else
      usage("no flag " + name);
  }
  return o;
}

double percentile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  const size_t at = std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

double resident_mb(int pid) {
  std::ifstream file(fmt::format("/proc/{}/statm", pid));
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * 4096 / 1e6;
}

// Processor seconds of the server's threads by what they are for. The io thread is the process's first one.
std::map<std::string, double> thread_seconds(int pid) {
  std::map<std::string, double> sums;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    double ns = 0;
    std::ifstream(entry.path() / "schedstat") >> ns;
    const bool first = entry.path().filename() == std::to_string(pid);
    sums[first ? "io" : name.starts_with("nautile-") ? "engine" : "workers"] += ns / 1e9;
  }
  return sums;
}

double own_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

int connect_to(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    if (fd >= 0) close(fd);
    return -1;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

// One connection and the answer that it is receiving.
struct Stream {
  int fd = -1, status = 0, left = 0;
  size_t expected = 0, seen = 0;  // of a body with a length
  bool busy = false, head = true, has_length = false, retry_after = false, done = false, closes = false, failed = false;
  double sent_s = 0, first_s = 0, last_s = 0;
  uint64_t events = 0;
  std::string rest;  // of a line
};

class Client {
 public:
  explicit Client(const Options& options) : o_(options), epoll_(epoll_create1(0)) {}
  ~Client() { close(epoll_); }

  int closed();
  int open();

 private:
  void report(double begin, double end);
  void send(Stream& stream);
  bool ready(Stream& stream);  // reads; false when the connection is gone
  void line(Stream& stream, const char* text, size_t size, double now);
  void finished(Stream& stream);
  void drop(Stream& stream);
  bool add();
  void wait(int milliseconds);
  void sample_memory(double now);

  const Options o_;
  const int epoll_;
  std::deque<Stream> streams_;
  std::vector<Stream*> free_;
  std::map<int, uint64_t> by_status_;
  uint64_t offered_ = 0, good_ = 0, broken_ = 0, unfinished_ = 0, failed_ = 0, no_retry_ = 0, no_room_ = 0, events_ = 0,
           reads_ = 0;
  std::vector<double> ttft_, tpot_, gaps_;
  double memory_ = 0, memory_most_ = 0, memory_next_s_ = 0;
  char buffer_[1 << 18];
};

void Client::send(Stream& s) {
  const std::string body = fmt::format(
      R"({{"model":"nautile","messages":[{{"role":"user","content":"What is {} + {}?"}}],"stream":true,"max_tokens":{},)"
      R"("ignore_eos":true{}{}}})",
      offered_ % 900 + 100, offered_ * 7 % 900 + 100, o_.tokens, o_.extra.empty() ? "" : ",", o_.extra);
  const std::string request = fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\n{}{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
      o_.path, o_.header, o_.header.empty() ? "" : "\r\n", body.size(), body);
  ++offered_;
  const int left = s.left, fd = s.fd;
  s = Stream{};
  s.left = left;
  s.fd = fd;
  s.busy = true;
  s.sent_s = seconds_now();
  if (write(s.fd, request.data(), request.size()) != static_cast<ssize_t>(request.size())) drop(s);
}

bool Client::add() {
  const int fd = connect_to(o_.port);
  if (fd < 0) return false;
  Stream& s = streams_.emplace_back();
  s.fd = fd;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &s;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  return true;
}

void Client::drop(Stream& s) {
  if (s.busy) ++(s.status == 200 ? unfinished_ : broken_);
  if (s.fd >= 0) close(s.fd);
  s.fd = -1;
  s.busy = false;
}

// One line of the answer: of the head, a chunk's size, an event.
void Client::line(Stream& s, const char* text, size_t size, double now) {
  auto begins = [&](std::string_view with) {
    return size >= with.size() && std::memcmp(text, with.data(), with.size()) == 0;
  };
  if (s.head) {
    if (s.status == 0 && size > 12) s.status = std::atoi(text + 9);
    if (begins("Content-Length: ")) {
      s.has_length = true;
      s.expected = static_cast<size_t>(std::atoll(text + 16));
    }
    if (begins("Retry-After: ")) s.retry_after = true;
    if (begins("Connection: close")) s.closes = true;
    if (size == 1 && s.status != 100) {
      s.head = false;
      s.done = s.has_length && s.expected == 0;
    }
    return;
  }
  if (begins("data: {\"error\"")) s.failed = true;
  if (begins("data: ")) {
    ++s.events;
    ++events_;
    if (s.first_s == 0) {
      s.first_s = now;
    } else if (!begins("data: [DONE]")) {
      s.last_s = now;
    }
  } else if (size == 2 && text[0] == '0' && text[1] == '\r') {
    s.done = true;  // the last chunk; its empty line follows in the same write
  }
}

bool Client::ready(Stream& s) {
  const ssize_t n = recv(s.fd, buffer_, sizeof buffer_, MSG_DONTWAIT);
  if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
  ++reads_;
  const double now = seconds_now();
  const double before = s.last_s;
  const uint64_t events = s.events;
  const char* at = buffer_;
  const char* const end = buffer_ + n;
  while (at < end) {
    if (!s.head && s.has_length) {
      s.seen += static_cast<size_t>(end - at);
      s.done = s.seen >= s.expected;
      break;
    }
    const char* newline = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
    if (newline == nullptr) {
      s.rest.append(at, end);
      break;
    }
    if (s.rest.empty()) {
      line(s, at, static_cast<size_t>(newline - at), now);
    } else {
      s.rest.append(at, newline);
      line(s, s.rest.data(), s.rest.size(), now);
      s.rest.clear();
    }
    at = newline + 1;
  }
  if (s.events > events && before > 0 && gaps_.size() < 4000000) gaps_.push_back(now - before);
  if (s.done) finished(s);
  return true;
}

void Client::finished(Stream& s) {
  s.busy = false;
  ++by_status_[s.status];
  if (s.status != 200) {
    no_retry_ += !s.retry_after;
    return;
  }
  if (s.failed) {
    ++failed_;
    return;
  }
  ++good_;
  ttft_.push_back(s.first_s - s.sent_s);
  if (o_.tokens > 1) tpot_.push_back((s.last_s - s.first_s) / (o_.tokens - 1));
}

void Client::sample_memory(double now) {
  if (o_.pid == 0 || now < memory_next_s_) return;
  memory_next_s_ = now + 0.5;
  memory_ = resident_mb(o_.pid);
  memory_most_ = std::max(memory_most_, memory_);
}

void Client::wait(int milliseconds) {
  epoll_event events[256];
  const int n = epoll_wait(epoll_, events, 256, milliseconds);
  for (int i = 0; i < n; ++i) {
    Stream& s = *static_cast<Stream*>(events[i].data.ptr);
    if (s.fd < 0) continue;
    const bool was_busy = s.busy;
    if (!ready(s)) {
      drop(s);
      continue;
    }
    if (!was_busy || s.busy) continue;
    if (s.closes) {
      drop(s);
    } else if (o_.rate > 0) {
      free_.push_back(&s);
    } else if (s.left > 0) {
      --s.left;
      send(s);
    }
  }
}

int Client::closed() {
  for (int i = 0; i < o_.streams; ++i) {
    if (!add()) usage("cannot connect");
  }
  const double begin = seconds_now();
  for (Stream& s : streams_) {
    s.left = o_.rounds - 1;
    send(s);
  }
  while (std::any_of(streams_.begin(), streams_.end(), [](const Stream& s) { return s.busy; })) {
    wait(1000);
    sample_memory(seconds_now());
  }
  report(begin, seconds_now());
  return unfinished_ + failed_ + broken_ > 0;
}

int Client::open() {
  const double begin = seconds_now(), end = begin + o_.seconds;
  double now = begin;
  for (; now < end; now = seconds_now()) {
    // What is due by now; what finds no connection is lost load, and is counted.
    const auto due = static_cast<uint64_t>((now - begin) * o_.rate);
    while (offered_ + no_room_ < due) {
      if (free_.empty()) {
        if (streams_.size() >= static_cast<size_t>(o_.most) || !add()) {
          ++no_room_;
          continue;
        }
        free_.push_back(&streams_.back());
      }
      Stream* s = free_.back();
      free_.pop_back();
      if (s->fd >= 0) send(*s);
    }
    wait(1);
    sample_memory(now);
  }
  const double stopped = seconds_now();
  while (std::any_of(streams_.begin(), streams_.end(), [](const Stream& s) { return s.busy; }) &&
         seconds_now() < stopped + 120) {
    wait(1000);
    sample_memory(seconds_now());
  }
  for (Stream& s : streams_) unfinished_ += s.busy;
  report(begin, seconds_now());
  return unfinished_ + failed_ + broken_ > 0;
}

void Client::report(double begin, double end) {
  const double tokens = static_cast<double>(good_) * o_.tokens;
  std::string statuses;
  for (const auto& [status, count] : by_status_) {
    statuses += fmt::format("{}\"{}\":{}", statuses.empty() ? "" : ",", status, count);
  }
  fmt::print(R"({{"streams":{},"tokens_each":{},"offered":{},"status":{{{}}},"unfinished":{},"failed":{},"broken":{},)"
             R"("without_retry_after":{},"no_connection":{},"seconds":{:.3f},"tokens_per_s":{:.1f})",
             o_.streams, o_.tokens, offered_, statuses, unfinished_, failed_, broken_, no_retry_, no_room_, end - begin,
             tokens / (end - begin));
  // Each from its first token to its last, summed over the streams that ran at a time.
  if (o_.rate == 0 && !tpot_.empty()) {
    double rate = 0;
    for (const double seconds : tpot_) rate += seconds > 0 ? 1 / seconds : 0;
    fmt::print(R"(,"decode_tokens_per_s":{:.1f})", rate / static_cast<double>(tpot_.size()) * o_.streams);
  }
  for (auto& [name, values] :
       {std::pair<const char*, std::vector<double>&>("ttft_ms", ttft_), {"tpot_ms", tpot_}, {"gap_ms", gaps_}}) {
    fmt::print(R"(,"{}":{{"p50":{:.3f},"p99":{:.3f},"max":{:.3f}}})", name, 1e3 * percentile(values, 0.5),
               1e3 * percentile(values, 0.99), 1e3 * percentile(values, 1));
  }
  fmt::print(R"(,"events":{},"reads":{},"client_cpu_s":{:.3f})", events_, reads_, own_seconds());
  if (o_.pid > 0) {
    sample_memory(seconds_now() + 1);
    fmt::print(R"(,"resident_mb":{:.1f},"resident_most_mb":{:.1f})", memory_, memory_most_);
  }
}

int idle(const Options& o) {
  const double before = resident_mb(o.pid);
  std::vector<int> held;
  char sink[8192];
  const std::string request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (int i = 0; i < o.idle; ++i) {
    const int fd = connect_to(o.port);
    if (fd < 0 || write(fd, request.data(), request.size()) < 0 || read(fd, sink, sizeof sink) <= 0)
      usage("cannot connect");
    held.push_back(fd);
  }
  fmt::print("{{\"idle\":{},\"resident_mb\":{:.1f},\"added_mb\":{:.1f}}}\n", o.idle, resident_mb(o.pid),
             resident_mb(o.pid) - before);
  for (const int fd : held) close(fd);
  return 0;
}

}  // namespace
}  // namespace nautile

int main(int argc, char** argv) {
  using namespace nautile;
  const Options o = parse(argc, argv);
  if (o.idle > 0) return idle(o);
  const auto before = o.pid > 0 ? thread_seconds(o.pid) : std::map<std::string, double>();
  Client client(o);
  const int result = o.rate > 0 ? client.open() : client.closed();
  if (o.pid > 0) {
    std::string text;
    auto after = thread_seconds(o.pid);
    for (const auto& [name, seconds] : after) {
      const auto found = before.find(name);
      text += fmt::format("{}\"{}\":{:.3f}", text.empty() ? "" : ",", name,
                          seconds - (found == before.end() ? 0 : found->second));
    }
    fmt::print(R"(,"server_cpu_s":{{{}}})", text);
  }
  fmt::print("}}\n");
  return result;
}
