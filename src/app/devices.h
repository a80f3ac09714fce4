#pragma once

namespace baton {

// baton devices: what this machine has for Baton to use, and what is missing. Returns the exit code.
int RunDevices();

}  // namespace baton
