// A session whose two ends are in one process: frames arrive by a call on the sender's thread.
//
// Threading: every method from any thread; on_frame runs on the sender's thread, in order for one sender. Callbacks
// must
//   not block, and a sender must not hold a lock that the other side's on_frame takes.
// Ownership: each end's events live until the session is closed, by either end; whoever connects closes it in the end.
// Errors: none: the other end lives as long as the process. Limits: none: nothing is queued.
#pragma once

#include <memory>
#include <string>

#include "rpc/session.h"

namespace baton {

// `name` is what peer() says on both ends. Returns the connecting end.
std::shared_ptr<Session> ConnectWithin(const std::string& name, SessionEvents events, const Network::Accept& accept);

}  // namespace baton
