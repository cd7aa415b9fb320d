#pragma once

// GF_CHECK(cond) ends the process when an invariant of our own code is broken. What the network,
// a file, a flag or load can cause is an absl::Status instead, never a check.

#include <cstdio>
#include <cstdlib>

namespace gatefold {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}

}  // namespace gatefold

#define GF_CHECK(condition)                                    \
  do {                                                         \
    if (__builtin_expect(!(condition), 0))                     \
      ::gatefold::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

#ifdef NDEBUG
#define GF_DCHECK(condition) \
  do {                       \
  } while (false)
#else
#define GF_DCHECK(condition) GF_CHECK(condition)
#endif
