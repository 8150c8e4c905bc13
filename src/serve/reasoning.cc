// The table of section 6.2 and the precedence of 6.3.
#include "serve/reasoning.h"

#include <fmt/format.h>

#include <algorithm>

namespace nautile::serve {
namespace {

constexpr ReasoningMode kOff = ReasoningMode::kNonThink;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

class Reader {
 public:
  Reader(Fields& fields, Dialect dialect, EncodingProfile profile, ReasoningMode fallback)
      : fields_(fields), dialect_(dialect), profile_(profile), fallback_(fallback) {}

  ReasoningChoice read() {
    named();
    thinking();
    efforts();
    reasoning_object();
    template_arguments();
    budgets();
    bool send = true;
    if (fields_.boolean("include_reasoning", send)) choice_.exclude |= !send;
    decide();
    return choice_;
  }

 private:
  void named() {
    std::string word;
    if (!fields_.text("reasoning_mode", word)) return;
    named_ = mode_of(lower(word));
    if (!named_) {
      return fields_.fail("reasoning_mode", "invalid_value",
                          "must be non_think, think_low, think_high or think_max, but is \"" + word + "\"");
    }
    if (*named_ == ReasoningMode::kThinkLow && profile_ == EncodingProfile::kPreview) {
      fields_.fail("reasoning_mode", "unsupported_value",
                   "think_low is not offered by this checkpoint; use non_think, think_high or think_max");
    }
  }

  void thinking() {
    const Json* value = fields_.get("thinking");
    if (value == nullptr) return;
    if (value->is_boolean()) {
      toggle_ = value->get<bool>();
      return;
    }
    if (!value->is_object()) return fields_.wrong("thinking", "an object such as {\"type\": \"enabled\"}");
    Fields inner(*value, "thinking", fields_.notes());
    std::string type, display;
    if (!inner.text("type", type)) {
      return inner.fail("type", "missing_required_parameter", "must be enabled, disabled or adaptive");
    }
    type = lower(type);
    if (type == "disabled") {
      toggle_ = false;
    } else if (type == "enabled" || type == "adaptive" || type == "auto") {
      toggle_ = true;
    } else {
      return inner.fail("type", "invalid_value", "must be enabled, disabled or adaptive, but is \"" + type + "\"");
    }
    budget(inner, "budget_tokens");
    std::string effort;
    if (inner.text("effort", effort) || inner.text("reasoning_effort", effort)) word(inner, "effort", effort);
    if (inner.text("display", display)) choice_.omit = display == "omitted";
    inner.finish();
  }

  void efforts() {
    std::string effort;
    if (fields_.text("reasoning_effort", effort)) word(fields_, "reasoning_effort", effort);
    if (dialect_ != Dialect::kMessages) return;
    if (const Json* config = fields_.object("output_config")) {
      Fields inner(*config, "output_config", fields_.notes());
      if (inner.text("effort", effort)) word(inner, "effort", effort);
      inner.accept({"format"});
      inner.finish();
    }
  }

  void reasoning_object() {
    const Json* value = fields_.object("reasoning");
    if (value == nullptr) return;
    Fields inner(*value, "reasoning", fields_.notes());
    std::string effort, summary;
    bool flag = false;
    const bool own = dialect_ == Dialect::kResponses;  // there it is the dialect's own effort, else one step weaker
    if (inner.text("effort", effort) && (own || !effort_)) word(inner, "effort", effort);
    if (inner.boolean("enabled", flag) && !toggle_) toggle_ = flag;
    if (inner.boolean("exclude", flag)) choice_.exclude |= flag;
    if (inner.text("summary", summary)) choice_.summary = summary != "none";
    budget(inner, "max_tokens");
    inner.accept({"context", "mode", "generate_summary"});
    inner.finish();
  }

  void template_arguments() {
    if (fields_.has("chat_template")) {
      fields_.fail("chat_template", "unsupported_parameter", "is not supported: templates are not taken from requests");
    }
    const Json* value = fields_.object("chat_template_kwargs");
    if (value == nullptr) return;
    Fields inner(*value, "chat_template_kwargs", fields_.notes());
    bool on = false;
    std::string text;
    for (const char* name : {"thinking", "enable_thinking"}) {
      if (inner.boolean(name, on) && !toggle_ && !effort_) toggle_ = on;
    }
    if (inner.text("thinking_mode", text) && !toggle_ && !effort_) {
      if (text != "chat" && text != "thinking") {
        inner.fail("thinking_mode", "invalid_value", "must be chat or thinking");
      } else {
        toggle_ = text == "thinking";
      }
    }
    if (inner.text("reasoning_effort", text) && !effort_) word(inner, "reasoning_effort", text);
    inner.finish();
  }

  void budgets() {
    budget(fields_, "thinking_token_budget");
    budget(fields_, "thinking_budget");
    if (const Json* nvext = fields_.object("nvext")) {
      Fields inner(*nvext, "nvext", fields_.notes());
      budget(inner, "max_thinking_tokens");
    }
  }

  void budget(Fields& fields, const char* name) {
    int64_t tokens = 0;
    if (fields.integer(name, tokens, 0, INT64_MAX) && !choice_.budget) choice_.budget = tokens;
  }

  void word(Fields& fields, const char* name, const std::string& effort) {
    const auto mode = effort_mode(lower(effort), profile_, fallback_);
    if (!mode) {
      return fields.fail(name, "invalid_value",
                         fmt::format("must be none, minimal, low, medium, high, xhigh or max, but is \"{}\"", effort));
    }
    effort_ = *mode;
  }

  void decide() {
    choice_.explicit_ = named_ || toggle_ || effort_ || choice_.budget;
    if (named_) {
      const bool on = *named_ != kOff;
      if ((toggle_ && *toggle_ != on) || (!toggle_ && effort_ && (*effort_ != kOff) != on)) {
        fields_.fail("reasoning_mode", "conflicting_parameters", "contradicts another reasoning field");
      }
      choice_.mode = *named_;
    } else if (toggle_ && !*toggle_) {
      choice_.mode = kOff;
    } else if (toggle_ && effort_ && *effort_ == kOff) {
      fields_.fail("thinking", "conflicting_parameters", "is enabled, but the effort is none");
    } else if (effort_) {
      choice_.mode = *effort_;
    } else if (toggle_) {
      choice_.mode = fallback_ == kOff ? ReasoningMode::kThinkHigh : fallback_;
    } else {
      choice_.mode = fallback_;
    }
    if (choice_.budget && *choice_.budget == 0) choice_.mode = kOff;
  }

  Fields& fields_;
  Dialect dialect_;
  EncodingProfile profile_;
  ReasoningMode fallback_;
  ReasoningChoice choice_;
  std::optional<ReasoningMode> named_, effort_;
  std::optional<bool> toggle_;
};

}  // namespace

std::optional<ReasoningMode> mode_of(const std::string& name) {
  for (const ReasoningMode mode :
       {ReasoningMode::kNonThink, ReasoningMode::kThinkLow, ReasoningMode::kThinkHigh, ReasoningMode::kThinkMax}) {
    if (name == name_of(mode)) return mode;
  }
  return std::nullopt;
}

std::optional<ReasoningMode> effort_mode(const std::string& word, EncodingProfile profile, ReasoningMode fallback) {
  const bool preview = profile == EncodingProfile::kPreview;
  if (word == "none" || word == "off" || word == "disabled") return ReasoningMode::kNonThink;
  if (word == "minimal" || word == "low") return preview ? ReasoningMode::kThinkHigh : ReasoningMode::kThinkLow;
  if (word == "medium" || word == "high") return ReasoningMode::kThinkHigh;
  if (word == "xhigh") return preview ? ReasoningMode::kThinkMax : ReasoningMode::kThinkHigh;
  if (word == "max" || word == "ultra") return ReasoningMode::kThinkMax;
  if (word == "default" || word == "auto") return fallback;
  return std::nullopt;
}

ReasoningChoice read_reasoning(Fields& fields, Dialect dialect, EncodingProfile profile, ReasoningMode fallback) {
  return Reader(fields, dialect, profile, fallback).read();
}

}  // namespace nautile::serve
