// A SAX writer: each value of the top object becomes text as it is read.
#include "text/exact_json.h"

#include <fmt/format.h>

#include "base/json.h"

namespace nautile {
namespace {

class MemberWriter : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return scalar("null"); }
  bool boolean(bool value) override { return scalar(value ? "true" : "false"); }
  bool number_integer(int64_t value) override { return scalar(std::to_string(value)); }
  bool number_unsigned(uint64_t value) override { return scalar(std::to_string(value)); }
  bool number_float(double value, const std::string& digits) override {
    // An integer beyond 64 bits arrives here with its digits.
    return scalar(digits.find_first_of(".eE") == std::string::npos ? digits : python_json(value));
  }
  bool string(std::string& value) override {
    if (open_.size() == 1) {
      target().is_string = true;
      target().value = std::move(value);
      return true;
    }
    return scalar(python_json(value));
  }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return start('{'); }
  bool start_array(std::size_t) override { return !open_.empty() && start('['); }
  bool end_object() override { return end('}'); }
  bool end_array() override { return end(']'); }
  bool key(std::string& name) override {
    if (open_.size() > 1) {
      separate();
      target().value += python_json(name) + ": ";
      after_key_ = true;
      return true;
    }
    for (place_ = 0; place_ < members_.size(); ++place_) {
      if (members_[place_].name == name) break;
    }
    if (place_ == members_.size()) members_.emplace_back();
    members_[place_] = {name, false, {}};
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    position_ = position;
    return false;
  }

  std::vector<Argument> members_;
  std::size_t position_ = 0;

 private:
  Argument& target() { return members_[place_]; }
  void separate() {
    if (!after_key_ && !first_) target().value += ", ";
    first_ = after_key_ = false;
  }
  bool scalar(std::string_view text) {
    if (open_.empty()) return false;
    if (open_.size() > 1) separate();
    target().value += text;
    return true;
  }
  bool start(char bracket) {
    if (open_.size() >= kMaxJsonDepth) return false;
    if (open_.size() > 1) separate();
    if (!open_.empty()) target().value += bracket;
    open_ += bracket;
    first_ = true;
    return true;
  }
  bool end(char bracket) {
    open_.pop_back();
    if (!open_.empty()) target().value += bracket;
    first_ = false;
    return true;
  }

  std::string open_;  // the brackets around this place
  size_t place_ = 0;
  bool first_ = true, after_key_ = false;
};

}  // namespace

Result<std::vector<Argument>> python_members(std::string_view json, const std::string& where) {
  MemberWriter writer;
  if (!read_json<Json>(json, static_cast<nlohmann::json_sax<Json>*>(&writer))) {
    return Status(Code::kInvalidArgument, "must be the text of one JSON object",
                  writer.position_ ? fmt::format("{}, byte {}", where, writer.position_) : where);
  }
  return std::move(writer.members_);
}

bool is_json(std::string_view text) {
  nlohmann::detail::json_sax_acceptor<Json> acceptor;
  return read_json<Json>(text, &acceptor);
}

}  // namespace nautile
