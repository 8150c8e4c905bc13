#include "serve/reply.h"
#include "serve/translate.h"

namespace nautile::serve {
std::unique_ptr<ReplyWriter> responses_writer(const Ask& ask, const ReplyContext& context) {
  return chat_writer(ask, context);
}
Outcome<Ask> translate_responses(const Json& body, const TranslateContext& context) {
  return translate_chat(body, context);
}
}  // namespace nautile::serve
