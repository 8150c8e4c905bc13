// Reads tokenizer.json: vocabulary and merges (megabytes) go straight into lists, the rest into a small document.
#include "text/tokenizer_file.h"

#include <fmt/format.h>

#include <unordered_set>

#include "base/json.h"

namespace nautile {
namespace {

constexpr size_t kMaxKeys = 4096;  // of an object outside the vocabulary; the ordered document searches linearly

// Takes model.vocab and model.merges out of the stream of events and leaves null in their place.
class FileBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  FileBuilder(Json& root, TokenizerFile& file) : Base(root, false), file_(file) {}

  bool null() { return mode_ == kDocument ? Base::null() : stray("null"); }
  bool boolean(bool value) { return mode_ == kDocument ? Base::boolean(value) : stray("a boolean"); }
  bool number_integer(int64_t value) {
    return mode_ == kDocument ? Base::number_integer(value) : stray("a negative number");
  }
  bool number_unsigned(uint64_t value) {
    if (mode_ == kDocument) return Base::number_unsigned(value);
    if (mode_ != kVocab) return stray("a number");
    if (value > INT32_MAX) return refuse(fmt::format("the id {} in model.vocab is beyond 2^31", value));
    file_.vocab.back().second = static_cast<int64_t>(value);
    return true;
  }
  bool number_float(double value, const std::string& digits) {
    return mode_ == kDocument ? Base::number_float(value, digits) : stray("a fraction");
  }
  bool string(std::string& value) {
    switch (mode_) {
      case kDocument:
        return Base::string(value);
      case kVocab:
        return stray("a string");
      case kMerges: {
        const auto space = value.find(' ');
        if (space == 0 || space == std::string::npos || space + 1 == value.size() ||
            value.find(' ', space + 1) != std::string::npos) {
          return refuse(
              fmt::format("merge {} is \"{}\", not two parts with one space between", file_.merges.size(), value));
        }
        file_.merges.emplace_back(value.substr(0, space), value.substr(space + 1));
        return true;
      }
      case kMergePair:
        if (parts_ >= 2) return refuse(fmt::format("merge {} has more than two parts", file_.merges.size() - 1));
        (parts_++ == 0 ? file_.merges.back().first : file_.merges.back().second) = std::move(value);
        return true;
    }
    return false;
  }
  bool start_object(std::size_t size) {
    if (mode_ != kDocument) return stray("an object");
    if (expected_ == kVocab) {
      mode_ = kVocab;
      expected_ = kDocument;
      return Base::null();
    }
    expected_ = kDocument;
    keys_.emplace_back();
    return deeper() && Base::start_object(size);
  }
  bool end_object() {
    if (mode_ == kVocab) {
      mode_ = kDocument;
      return true;
    }
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(std::size_t size) {
    if (mode_ == kMerges) {
      mode_ = kMergePair;
      parts_ = 0;
      file_.merges.emplace_back();
      return true;
    }
    if (mode_ != kDocument) return stray("an array");
    if (expected_ == kMerges) {
      mode_ = kMerges;
      expected_ = kDocument;
      return Base::null();
    }
    expected_ = kDocument;
    return deeper() && Base::start_array(size);
  }
  bool end_array() {
    if (mode_ == kMergePair) {
      if (parts_ != 2) return refuse(fmt::format("merge {} has {} parts, not two", file_.merges.size() - 1, parts_));
      mode_ = kMerges;
      return true;
    }
    if (mode_ == kMerges) {
      mode_ = kDocument;
      return true;
    }
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (mode_ == kVocab) {
      file_.vocab.emplace_back(std::move(name), -1);
      return true;
    }
    if (!keys_.back().insert(name).second)
      return refuse(fmt::format("the key \"{}\" appears twice in one object", name));
    if (keys_.back().size() > kMaxKeys) return refuse(fmt::format("an object has more than {} keys", kMaxKeys));
    if (depth_ == 1) in_model_ = name == "model";
    expected_ = depth_ == 2 && in_model_ && name == "vocab"    ? kVocab
                : depth_ == 2 && in_model_ && name == "merges" ? kMerges
                                                               : kDocument;
    return Base::key(name);
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    problem_ = json_fault(error);
    position_ = position;
    return false;
  }

  std::string problem_;
  std::size_t position_ = 0;

 private:
  enum Mode { kDocument, kVocab, kMerges, kMergePair };

  bool refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  bool stray(const char* what) {
    return refuse(mode_ == kVocab ? fmt::format("model.vocab holds {} where an id belongs", what)
                                  : fmt::format("model.merges holds {} at merge {}", what, file_.merges.size()));
  }
  bool deeper() {
    return ++depth_ <= kMaxJsonDepth || refuse(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
  }

  TokenizerFile& file_;
  Mode mode_ = kDocument, expected_ = kDocument;
  std::vector<std::unordered_set<std::string>> keys_;
  int depth_ = 0, parts_ = 0;
  bool in_model_ = false;
};

// The checks on the document. Each names the field by its path.
class Checker {
 public:
  Checker(const Json& root, const std::string& where) : root_(root), where_(where) {}

  Status check(TokenizerFile& file) {
    if (!root_.is_object()) return corrupt("", "must be an object");
    NAUTILE_RETURN_IF_ERROR(expect(root_, "", "truncation", nullptr));
    NAUTILE_RETURN_IF_ERROR(expect(root_, "", "padding", nullptr));
    NAUTILE_RETURN_IF_ERROR(normalizer());
    NAUTILE_RETURN_IF_ERROR(pre_tokenizer(file));
    NAUTILE_RETURN_IF_ERROR(byte_level("post_processor", true));
    NAUTILE_RETURN_IF_ERROR(byte_level("decoder", false));
    NAUTILE_RETURN_IF_ERROR(model(file));
    return added_tokens(file);
  }

 private:
  static const Json* field(const Json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
  }
  Status corrupt(const std::string& path, const std::string& what) const {
    return {Code::kCorrupt, path.empty() ? what : fmt::format("{} {}", path, what), where_};
  }
  Status unsupported(const std::string& path, const Json& value) const {
    std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 80) shown = shown.substr(0, 80) + "...";
    return {Code::kUnsupported, fmt::format("{} is {}, which Nautile does not run", path, shown), where_,
            "Nautile runs the byte-level BPE of DeepSeek-V3 and V4"};
  }
  // The field may be absent; if present it must equal `value`.
  Status expect(const Json& object, const std::string& path, const char* key, const Json& value) const {
    const Json* found = field(object, key);
    if (found == nullptr || *found == value) return {};
    return unsupported(path + key, *found);
  }
  Result<std::string> type_of(const Json& object, const std::string& path) const {
    const Json* type = field(object, "type");
    if (type == nullptr || !type->is_string()) return corrupt(path + ".type", "must be a string");
    return type->get<std::string>();
  }

  Status normalizer() const {
    const Json* found = field(root_, "normalizer");
    if (found == nullptr || found->is_null()) return {};
    NAUTILE_ASSIGN(const std::string type, type_of(*found, "normalizer"));
    const Json* parts = field(*found, "normalizers");
    if (type == "Sequence" && parts != nullptr && parts->is_array() && parts->empty()) return {};
    return unsupported("normalizer", *found);
  }

  Status pre_tokenizer(TokenizerFile& file) const {
    const Json* found = field(root_, "pre_tokenizer");
    if (found == nullptr) return corrupt("pre_tokenizer", "is missing");
    std::vector<const Json*> steps;
    NAUTILE_ASSIGN(const std::string type, type_of(*found, "pre_tokenizer"));
    if (type == "Sequence") {
      const Json* list = field(*found, "pretokenizers");
      if (list == nullptr || !list->is_array()) return corrupt("pre_tokenizer.pretokenizers", "must be an array");
      for (const Json& step : *list) steps.push_back(&step);
    } else {
      steps.push_back(found);
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::string path = fmt::format("pre_tokenizer[{}]", i);
      NAUTILE_ASSIGN(const std::string step, type_of(*steps[i], path));
      if (i + 1 == steps.size()) {
        if (step != "ByteLevel") return unsupported(path + " (the last)", *steps[i]);
        for (const char* key : {"add_prefix_space", "use_regex"}) {
          const Json* flag = field(*steps[i], key);  // both default to true
          if (flag == nullptr || *flag != false) return unsupported(path, *steps[i]);
        }
        continue;
      }
      const Json* pattern = field(*steps[i], "pattern");
      const Json* regex = pattern == nullptr ? nullptr : field(*pattern, "Regex");
      const Json* behavior = field(*steps[i], "behavior");
      if (step != "Split" || regex == nullptr || !regex->is_string() || behavior == nullptr ||
          *behavior != "Isolated") {
        return unsupported(path, *steps[i]);
      }
      NAUTILE_RETURN_IF_ERROR(expect(*steps[i], path + ".", "invert", false));
      file.splits.push_back(regex->get<std::string>());
    }
    return steps.empty() ? corrupt("pre_tokenizer", "has no step") : Status();
  }

  Status byte_level(const char* key, bool may_be_null) const {
    const Json* found = field(root_, key);
    if (found == nullptr || found->is_null()) {
      return may_be_null ? Status() : Status(Code::kUnsupported, fmt::format("{} is not ByteLevel", key), where_);
    }
    NAUTILE_ASSIGN(const std::string type, type_of(*found, key));
    return type == "ByteLevel" ? Status() : unsupported(key, *found);
  }

  Status model(const TokenizerFile& file) const {
    const Json* model = field(root_, "model");
    if (model == nullptr || !model->is_object()) return corrupt("model", "must be an object");
    NAUTILE_RETURN_IF_ERROR(expect(*model, "model.", "type", "BPE"));
    for (const char* key : {"dropout", "unk_token"}) NAUTILE_RETURN_IF_ERROR(expect(*model, "model.", key, nullptr));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* text = field(*model, key);
      if (text != nullptr && !text->is_null() && *text != "") return unsupported(std::string("model.") + key, *text);
    }
    for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
      NAUTILE_RETURN_IF_ERROR(expect(*model, "model.", key, false));
    }
    if (file.vocab.empty()) return corrupt("model.vocab", "is missing or empty");
    for (const char* key : {"vocab", "merges"}) {
      const Json* taken = field(*model, key);
      if (taken == nullptr || !taken->is_null())
        return corrupt(std::string("model.") + key, "is missing or of the wrong type");
    }
    return {};
  }

  Status added_tokens(TokenizerFile& file) const {
    const Json* list = field(root_, "added_tokens");
    if (list == nullptr) return {};
    if (!list->is_array()) return corrupt("added_tokens", "must be an array");
    for (size_t i = 0; i < list->size(); ++i) {
      const Json& token = (*list)[i];
      const std::string path = fmt::format("added_tokens[{}].", i);
      const Json* id = field(token, "id");
      const Json* content = field(token, "content");
      const Json* special = field(token, "special");
      if (id == nullptr || !id->is_number_unsigned() || id->get<uint64_t>() > INT32_MAX) {
        return corrupt(path + "id", "must be a whole number from 0 to 2^31-1");
      }
      if (content == nullptr || !content->is_string()) return corrupt(path + "content", "must be a string");
      if (special != nullptr && !special->is_boolean()) return corrupt(path + "special", "must be true or false");
      for (const char* key : {"single_word", "lstrip", "rstrip"})
        NAUTILE_RETURN_IF_ERROR(expect(token, path, key, false));
      const Json* normalized = field(token, "normalized");
      if (normalized != nullptr && !normalized->is_boolean())
        return corrupt(path + "normalized", "must be true or false");
      file.added.push_back({static_cast<int64_t>(id->get<uint64_t>()), content->get<std::string>(),
                            special != nullptr && special->get<bool>(),
                            normalized == nullptr || normalized->get<bool>()});
    }
    return {};
  }

  const Json& root_;
  const std::string& where_;
};

}  // namespace

Result<TokenizerFile> read_tokenizer_file(std::string_view json, const std::string& where) {
  TokenizerFile file;
  Json root;
  FileBuilder builder(root, file);
  if (!read_json<Json>(json, &builder) || !builder.problem_.empty()) {
    const std::string place = builder.position_ ? fmt::format("{}, byte {}", where, builder.position_) : where;
    return Status(Code::kCorrupt, "not a tokenizer.json: " + builder.problem_, place);
  }
  NAUTILE_RETURN_IF_ERROR(Checker(root, where).check(file));
  return file;
}

}  // namespace nautile
