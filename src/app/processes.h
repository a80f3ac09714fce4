// The processes that baton serve starts: each wires its part together and serves until it is told to stop. They return
// the process's exit code: kExitConfiguration for what starting again would not mend.
#pragma once

#include "app/options.h"

namespace baton {

int RunWorker(const WorkerFlags& flags);
int RunFrontend(const FrontendProcessFlags& flags);

}  // namespace baton
