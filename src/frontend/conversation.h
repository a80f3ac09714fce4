// The messages of a chat request, from JSON to what a chat template is given.
// Internal to this folder: it drags Boost.JSON in.
//
// Threading: free functions. Errors: InvalidArgument with the message's place as param ("messages[2].content").
// Limits: RequestRules::messages_max; JSON's depth bounds the recursion.
#pragma once

#include <boost/json/value.hpp>

#include "base/status.h"
#include "frontend/json_fields.h"
#include "frontend/openai_request.h"

namespace baton {

// Reads messages, add_generation_prompt and chat_template_kwargs.
absl::Status ReadConversation(JsonFields& fields, const RequestRules& rules, Conversation* conversation);

}  // namespace baton
