// baton serve: the supervisor with the processes that the flags ask for.
#pragma once

#include "app/options.h"

namespace baton {

// Returns the process's exit code.
int RunServe(const ServeFlags& flags);

}  // namespace baton
