#include "transfer/copy_bytes.h"

#include <atomic>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace baton {

void CopyBytes(uint8_t* to, const uint8_t* from, int64_t bytes) {
#if defined(__SSE2__)
  constexpr int64_t kStreamFrom = 64 << 10;  // below, the reader may still find it in a shared cache
  if (bytes >= kStreamFrom) {
    const int64_t head = -reinterpret_cast<intptr_t>(to) & 63;
    std::memcpy(to, from, head);
    to += head;
    from += head;
    bytes -= head;
    for (; bytes >= 64; bytes -= 64, to += 64, from += 64) {
      const __m128i* source = reinterpret_cast<const __m128i*>(from);
      __m128i* target = reinterpret_cast<__m128i*>(to);
      const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
      const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
      _mm_stream_si128(target, a);
      _mm_stream_si128(target + 1, b);
      _mm_stream_si128(target + 2, c);
      _mm_stream_si128(target + 3, d);
    }
    std::memcpy(to, from, bytes);
    _mm_sfence();  // streaming stores are not ordered with the stores that tell of them
    return;
  }
#endif
  std::memcpy(to, from, bytes);
  std::atomic_thread_fence(std::memory_order_release);
}

}  // namespace baton
