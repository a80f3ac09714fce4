#include "base/crash_handler.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "absl/debugging/symbolize.h"

// Everything below Install runs in a signal handler: no locks, no allocation, only calls that are safe there.
namespace baton {
namespace {

constexpr int kFramesMax = 32;
constexpr unsigned kTraceSeconds = 5;  // then the process ends, trace or no trace

struct NamedSignal {
  int number;
  const char* name;
};
constexpr NamedSignal kSignals[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},
                                    {SIGILL, "SIGILL"},   {SIGFPE, "SIGFPE"},   {SIGTRAP, "SIGTRAP"}};

char g_process[65];
bool g_json = false;
std::atomic<bool> g_entered = false;
alignas(16) char g_stack[64 << 10];  // of the handler, for a thread that has overrun its own

// One line of the log, cut where it is too long, written at once.
class Line {
 public:
  Line() {
    Add(g_json ? "{\"level\":\"critical\",\"process\":\"" : "[");
    Add(g_process);
    Add(g_json ? "\",\"message\":\"" : "] ");
  }
  ~Line() {
    const char* end = g_json ? "\"}\n" : "\n";
    std::memcpy(text_ + size_, end, std::strlen(end));
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text_, size_ + std::strlen(end));
  }
  Line& Add(const char* text) {
    for (; *text != 0 && size_ + 8 < sizeof(text_); ++text) text_[size_++] = *text;
    return *this;
  }
  Line& AddNumber(uint64_t value, int base) {
    char digits[24] = {};
    std::to_chars(digits, digits + sizeof(digits) - 1, value, base);
    return Add(digits);
  }

 private:
  char text_[512];
  size_t size_ = 0;
};

// Frames from the place of the crash outwards.
struct Frames {
  uintptr_t pcs[kFramesMax];
  int count = 0;
  uintptr_t crash_pc = 0;  // until it is found: what is inside of it is the handler's own
};

_Unwind_Reason_Code AddFrame(_Unwind_Context* context, void* argument) {
  Frames& frames = *static_cast<Frames*>(argument);
  const uintptr_t pc = _Unwind_GetIP(context);
  if (frames.crash_pc != 0 && pc != frames.crash_pc) return _URC_NO_REASON;
  frames.crash_pc = 0;
  if (frames.count == kFramesMax || pc == 0) return _URC_END_OF_STACK;
  frames.pcs[frames.count++] = pc;
  return _URC_NO_REASON;
}

uintptr_t PcOf([[maybe_unused]] const void* context) {
#if defined(__x86_64__)
  return static_cast<uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#else
  return 0;
#endif
}

void WriteTrace(int signal, const siginfo_t& info, const void* context) {
  const auto known = std::find_if(std::begin(kSignals), std::end(kSignals),
                                  [signal](const NamedSignal& s) { return s.number == signal; });
  {
    Line line;
    line.Add("*** ").Add(known == std::end(kSignals) ? "signal" : known->name);
    if (info.si_code == SI_USER || info.si_code == SI_TKILL) {
      line.Add(", sent by process ").AddNumber(static_cast<uint64_t>(info.si_pid), 10);
    } else {
      line.Add(" at address 0x").AddNumber(reinterpret_cast<uintptr_t>(info.si_addr), 16);
    }
  }
  Frames frames{.crash_pc = PcOf(context)};
  _Unwind_Backtrace(AddFrame, &frames);
  for (int i = 0; i < frames.count; ++i) {
    char name[256];
    // A return address may be the first byte of what follows the call.
    const uintptr_t pc = i == 0 ? frames.pcs[i] : frames.pcs[i] - 1;
    const bool named = absl::Symbolize(reinterpret_cast<const void*>(pc), name, sizeof(name));
    if (named)
      std::replace_if(
          name, name + std::strlen(name), [](char c) { return c == '"' || c == '\\'; }, '\'');
    Line line;
    line.Add("    @ 0x").AddNumber(frames.pcs[i], 16).Add(" ").Add(named ? name : "(unknown)");
  }
}

void OnCrash(int signal, siginfo_t* info, void* context) {
  if (g_entered.exchange(true)) {
    while (true) pause();  // another thread's trace is under way, and ends this process
  }
  ::signal(SIGALRM, SIG_DFL);
  alarm(kTraceSeconds);
  WriteTrace(signal, *info, context);
  ::signal(signal, SIG_DFL);
  raise(signal);  // pending until this returns
}

}  // namespace

void InstallCrashHandler(std::string_view process, LogFormat format) {
  const size_t size = std::min(process.size(), sizeof(g_process) - 1);
  std::copy_n(process.data(), size, g_process);
  g_json = format == LogFormat::kJson;
  absl::InitializeSymbolizer("/proc/self/exe");
  const stack_t stack{.ss_sp = g_stack, .ss_flags = 0, .ss_size = sizeof(g_stack)};
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = OnCrash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const NamedSignal& known : kSignals) sigaction(known.number, &action, nullptr);
}

}  // namespace baton
