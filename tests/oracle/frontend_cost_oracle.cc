// Folders: frontend
// What a streamed token costs the front end in CPU time, beside bare send() calls of the same bytes at the same pace.
//
//   frontend_cost_oracle TOKENIZER_DIRECTORY STREAMS [TOKENS] [ROUNDS] [STEP_MS] [PROMPT_WORDS]
//
// Prints {"streams", "tokens", "front_end_s", "bare_s", …}: CPU seconds for 1,000 tokens, and peak memory in MB.
// Servers are child processes; the parent is the client of both. The generator gives every sequence one token a step,
// all at once, as an engine does.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstring>
#include <iostream>

#include "base/log.h"
#include "base/unique_fd.h"
#include "frontend/frontend.h"
#include "text/tokenizer_json.h"

namespace baton {
namespace {

using Clock = std::chrono::steady_clock;

struct Load {
  int streams = 32, tokens = 150, rounds = 2, step_ms = 20, prompt_words = 100;
};

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class StepGenerator : public Generator {
 public:
  explicit StepGenerator(int step_ms) : step_(step_ms), thread_([this] { Run(); }) {}
  ~StepGenerator() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
    }
    thread_.join();
  }
  SequenceId Generate(Request request, TokenSink sink) override {
    MutexLock lock(mutex_);
    sequences_.push_back({std::move(request), std::move(sink), 0});
    return SequenceId{++last_id_};
  }
  void Cancel(SequenceId) override {}
  absl::Status Health() const override { return absl::OkStatus(); }

 private:
  struct Sequence {
    Request request;
    TokenSink sink;
    int32_t position;
  };
  void Run() {
    for (auto next = Clock::now();; next += step_) {
      std::this_thread::sleep_until(next);
      MutexLock lock(mutex_);
      if (stopping_) return;
      for (Sequence& sequence : sequences_) Step(sequence);
      std::erase_if(sequences_,
                    [](const Sequence& sequence) { return sequence.position == sequence.request.sampling.max_tokens; });
    }
  }
  static void Step(Sequence& sequence) {
    TokenEvent event;
    event.position = sequence.position;
    event.tokens.push_back({.token = 1000 + sequence.position % 5000});
    if (++sequence.position == sequence.request.sampling.max_tokens) event.finish = FinishReason::kLength;
    sequence.sink(std::move(event));
  }

  const std::chrono::milliseconds step_;
  Mutex mutex_;
  std::vector<Sequence> sequences_ BATON_GUARDED_BY(mutex_);
  uint64_t last_id_ BATON_GUARDED_BY(mutex_) = 0;
  bool stopping_ BATON_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Runs `serve(to_parent, from_parent)` in a child; it writes its port, waits for a byte, and writes its CPU seconds.
template <typename Serve>
class Child {
 public:
  explicit Child(Serve serve) {
    int to_parent[2], from_parent[2];
    if (::pipe(to_parent) != 0 || ::pipe(from_parent) != 0) std::exit(1);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(to_parent[0]);
      ::close(from_parent[1]);
      serve(to_parent[1], from_parent[0]);
      std::_Exit(0);
    }
    ::close(to_parent[1]);
    ::close(from_parent[0]);
    in_ = UniqueFd(to_parent[0]);
    out_ = UniqueFd(from_parent[1]);
  }
  double Read() {
    double value = -1;
    return ::read(in_.get(), &value, sizeof(value)) == sizeof(value) ? value : -1;
  }
  void Tell() { (void)!::write(out_.get(), "x", 1); }
  ~Child() {
    out_.Reset();
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  UniqueFd in_, out_;
};

void Report(int fd, double value) { (void)!::write(fd, &value, sizeof(value)); }
void AwaitByte(int fd) {
  char byte;
  (void)!::read(fd, &byte, 1);
}

void ServeFrontend(const std::string& directory, const Load& load, int to_parent, int from_parent) {
  ConfigureLogging("cost", LogFormat::kText, LogLevel::kError);
  const auto data = ReadTokenizerDirectory(directory);
  const auto tokenizer = Tokenizer::Create(*data);
  auto formatter = ChatFormatter::Create(*data);
  MetricRegistry registry;
  StepGenerator generator(load.step_ms);
  FrontendOptions options;
  options.model_names = {"demo"};
  options.max_model_len = 32768;
  auto frontend = Frontend::Start(options, generator, *tokenizer, *std::move(formatter), registry);
  Report(to_parent, (*frontend)->port());
  AwaitByte(from_parent);
  const double before = CpuSeconds();
  AwaitByte(from_parent);
  Report(to_parent, CpuSeconds() - before);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  Report(to_parent, static_cast<double>(usage.ru_maxrss) / 1024);
}

UniqueFd Listen(int* port) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size);
  ::listen(listener.get(), 4096);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  *port = ntohs(address.sin_port);
  return listener;
}

// Sends as many events as the front end would, of the same size, to every stream at each step.
void ServeBare(const Load& load, size_t event_bytes, int to_parent, int from_parent) {
  int port = 0;
  const UniqueFd listener = Listen(&port);
  Report(to_parent, port);
  std::vector<UniqueFd> streams;
  for (int i = 0; i < load.streams; ++i) {
    streams.emplace_back(::accept(listener.get(), nullptr, nullptr));
    const int on = 1;
    ::setsockopt(streams.back().get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  AwaitByte(from_parent);
  const double before = CpuSeconds();
  const std::string event(event_bytes, 'x');
  auto next = Clock::now();
  for (int step = 0; step < load.tokens * load.rounds; ++step, next += std::chrono::milliseconds(load.step_ms)) {
    std::this_thread::sleep_until(next);
    for (const UniqueFd& stream : streams) (void)!::send(stream.get(), event.data(), event.size(), MSG_NOSIGNAL);
  }
  Report(to_parent, CpuSeconds() - before);
  AwaitByte(from_parent);
}

std::vector<UniqueFd> Connect(int port, int count) {
  std::vector<UniqueFd> out;
  for (int i = 0; i < count; ++i) {
    out.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(out.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) std::exit(1);
  }
  return out;
}

std::string ChatRequest(const Load& load) {
  std::string text;
  for (int i = 0; i < load.prompt_words; ++i) text += " word";
  const std::string body = Cat("{\"model\":\"demo\",\"messages\":[{\"role\":\"user\",\"content\":\"", text,
                               "\"}],\"stream\":true,\"max_tokens\":", load.tokens, ",\"ignore_eos\":true}");
  return Cat("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ", body.size(), "\r\n\r\n", body);
}

// Reads from all sockets until each has ended `rounds` answers (or closed); returns all bytes read.
size_t ReadAll(const std::vector<UniqueFd>& sockets, const std::string& request, int rounds) {
  size_t total = 0;
  std::vector<pollfd> polls;
  std::vector<int> left(sockets.size(), rounds);
  std::vector<std::string> tails(sockets.size());
  for (const UniqueFd& socket : sockets) {
    polls.push_back({socket.get(), POLLIN, 0});
    if (!request.empty()) (void)!::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
  }
  std::vector<char> buffer(1 << 16);
  for (size_t open = sockets.size(); open > 0;) {
    ::poll(polls.data(), polls.size(), 1000);
    for (size_t i = 0; i < polls.size(); ++i) {
      if (polls[i].revents == 0) continue;
      const ssize_t count = ::recv(polls[i].fd, buffer.data(), buffer.size(), 0);
      if (count > 0) {
        total += static_cast<size_t>(count);
        tails[i].append(buffer.data(), static_cast<size_t>(count));
        if (tails[i].size() > 5) tails[i].erase(0, tails[i].size() - 5);
      }
      const bool ended = count <= 0 || (!request.empty() && tails[i] == "0\r\n\r\n");
      if (!ended) continue;
      tails[i].clear();
      if (count > 0 && --left[i] > 0) {
        (void)!::send(polls[i].fd, request.data(), request.size(), MSG_NOSIGNAL);
        continue;
      }
      polls[i].fd = -1;
      --open;
    }
  }
  return total;
}

int Main(int argc, char** argv) {
  Load load;
  int* const fields[] = {&load.streams, &load.tokens, &load.rounds, &load.step_ms, &load.prompt_words};
  for (int i = 2; i < argc && i < 7; ++i) *fields[i - 2] = std::atoi(argv[i]);
  const double thousands = 1e-3 * load.streams * load.tokens * load.rounds;
  double front_end = 0, megabytes = 0;
  size_t bytes = 0;
  {
    Child server([&](int to_parent, int from_parent) { ServeFrontend(argv[1], load, to_parent, from_parent); });
    const auto sockets = Connect(static_cast<int>(server.Read()), load.streams);
    server.Tell();
    bytes = ReadAll(sockets, ChatRequest(load), load.rounds);
    server.Tell();
    front_end = server.Read();
    megabytes = server.Read();
  }
  const size_t event_bytes = bytes / static_cast<size_t>(load.streams * load.tokens * load.rounds);
  double bare = 0;
  {
    Child server([&](int to_parent, int from_parent) { ServeBare(load, event_bytes, to_parent, from_parent); });
    auto sockets = Connect(static_cast<int>(server.Read()), load.streams);
    server.Tell();
    std::thread reader([&] { ReadAll(sockets, "", 1); });
    bare = server.Read();
    for (const UniqueFd& socket : sockets) ::shutdown(socket.get(), SHUT_RDWR);
    reader.join();
    server.Tell();
  }
  std::printf(
      "{\"streams\": %d, \"tokens\": %.0f, \"bytes_per_token\": %zu, \"front_end_s\": %.5f, \"bare_s\": %.5f, "
      "\"front_end_mb\": %.0f}\n",
      load.streams, 1e3 * thousands, event_bytes, front_end / thousands, bare / thousands, megabytes);
  return 0;
}

}  // namespace
}  // namespace baton

int main(int argc, char** argv) { return argc < 3 ? 2 : baton::Main(argc, argv); }
