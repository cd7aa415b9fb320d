#include "gatefold/base/background_thread.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace gatefold {

// Linux keeps a nice value for each thread. That it may fail changes nothing but the pace.
void StepBackForOthers() { setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 10); }

}  // namespace gatefold
