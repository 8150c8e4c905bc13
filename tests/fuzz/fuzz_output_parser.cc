// Anything a model may print, cut anywhere: the events do not depend on the cuts, are valid UTF-8, and every call that
// ended has a JSON object. The first byte chooses the start, the second the size of the pieces.
#include <cstdlib>

#include "text/exact_json.h"
#include "text/output_parser.h"

namespace {

using namespace nautile;

std::string run(const OutputParserOptions& options, std::string_view output, size_t step) {
  const ChatTokens tokens{0, 1, 128803, 128804, 128821, 128822, 128825, 128828};
  OutputParser parser(tokens, options);
  std::vector<OutputEvent> events;
  for (size_t at = 0; at < output.size(); at += step) parser.push(output.substr(at, step), events);
  const ParsedMessage message = parser.finish(OutputEnd::kEndOfTurn, events);
  std::string joined;
  int kind = -1, call = -1;
  std::string reasoning, content;
  for (const OutputEvent& event : events) {
    if (valid_utf8_prefix(event.text) != event.text.size()) std::abort();
    if (event.kind == OutputEvent::kReasoning) reasoning += event.text;
    if (event.kind == OutputEvent::kContent) content += event.text;
    if (event.kind != kind || event.call != call || event.kind >= OutputEvent::kToolStart) {
      if (!(event.kind == OutputEvent::kToolArguments && kind == event.kind && call == event.call)) {
        joined += "\n" + std::to_string(event.kind) + " " + std::to_string(event.call) + " ";
      }
    }
    kind = event.kind;
    call = event.call;
    joined += event.text;
  }
  if (reasoning != message.reasoning || content != message.content) std::abort();
  for (const ParsedCall& parsed : message.calls) {
    if (!python_members(parsed.arguments, "fuzz").ok()) std::abort();
  }
  return joined;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  OutputParserOptions options;
  options.start = static_cast<OutputStart>(data[0] % 4);
  if (!(data[0] & 16)) {
    options.tools.push_back({"f", "", nullptr});
    options.tools.push_back(
        {"add", "", Json{{"properties", {{"a", {{"type", "string"}}}, {"b", {{"type", "integer"}}}}}}});
  }
  options.forced_name = "add";
  const std::string_view output(reinterpret_cast<const char*>(data + 2), size - 2);
  const std::string whole = run(options, output, output.size() + 1);
  if (run(options, output, 1) != whole || run(options, output, 1 + data[1] % 16) != whole) std::abort();
  return 0;
}
