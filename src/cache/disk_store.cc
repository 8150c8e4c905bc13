// Key, listing, writing, reading, room.
#include "cache/disk_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "sys/file.h"
#include "sys/random.h"

namespace nautile {
namespace {

constexpr std::string_view kKeyName = "key", kPartialEnd = ".partial";
// An unfinished file that has not grown for so long is nobody's work any more.
constexpr int64_t kPartialAge_s = 600;
constexpr size_t kKeyFileBytes = kPrefixKeyBytes + sizeof(Hash128);

int64_t system_now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string partial_name(std::string_view tag, std::string_view name) {
  return fmt::format("{}.{}{}", name, tag, kPartialEnd);
}

std::vector<std::byte> encode_key(const PrefixKey& key) {
  std::vector<std::byte> file(kKeyFileBytes);
  const Hash128 check = PrefixHasher(key, {}).checksum(key);
  std::memcpy(file.data(), key.data(), key.size());
  std::memcpy(file.data() + key.size(), &check, sizeof check);
  return file;
}

std::optional<PrefixKey> decode_key(std::span<const std::byte> file) {
  PrefixKey key;
  if (file.size() != kKeyFileBytes) return std::nullopt;
  std::memcpy(key.data(), file.data(), key.size());
  if (!std::ranges::equal(encode_key(key), file)) return std::nullopt;
  return key;
}

// Rows of another layout or format have other ids.
Hash128 model_with_layout(const Hash128& model, const CacheLayout& layout) {
  const CacheShape& shape = layout.shape();
  std::string text =
      fmt::format("{} format {} main {} window {} kv {} {} {} index {} {} ratios", hex(model), kDiskVersion,
                  shape.main_layers, shape.window, static_cast<int>(shape.kv.format), shape.kv.head_dim,
                  shape.kv.rope_dim, static_cast<int>(shape.index.format), shape.index.dim);
  for (const int ratio : shape.ratios) text += fmt::format(" {}", ratio);
  return hash128(text);
}

// The directory's key. Of two processes that make one at the same time, one's stays and both use it.
Result<PrefixKey> find_key(Directory& directory, const std::function<void(const std::string&)>& warn) {
  const std::string name(kKeyName);
  for (int attempt = 0; attempt < 3; ++attempt) {
    auto file = directory.read(name, kKeyFileBytes);
    if (file.ok()) {
      if (const auto key = decode_key(*file)) return *key;
      if (warn)
        warn(fmt::format("{}: the key is damaged; a new one is made, older files cannot be used",
                         join_path(directory.path(), name)));
      NAUTILE_RETURN_IF_ERROR(directory.remove(name));
    } else if (file.status().code() != Code::kNotFound) {
      return file.status();
    }
    const PrefixKey fresh = random_prefix_key();
    const std::string partial = partial_name(fmt::format("{:016x}", random_seed()), name);
    Status made = directory.create(partial, encode_key(fresh));
    if (made.ok()) made = directory.rename_new(partial, name);
    if (made.ok()) made = directory.sync();
    if (!made.ok()) {
      (void)directory.remove(partial);
      if (made.code() != Code::kInvalidArgument) return made;  // else: another process was first
    }
  }
  return Status(Code::kIo, "cannot agree on a key with the other processes that use the directory", directory.path());
}

}  // namespace

DiskStore::DiskStore(std::unique_ptr<Directory> directory, std::shared_ptr<const CacheLayout> layout,
                     DiskOptions options, const PrefixKey& key)
    : directory_(std::move(directory)),
      layout_(std::move(layout)),
      options_(std::move(options)),
      hasher_(key, options_.model),
      process_tag_(fmt::format("{:016x}", random_seed())) {
  if (!options_.now_s) options_.now_s = system_now_s;
}

Result<std::unique_ptr<DiskStore>> DiskStore::open(std::unique_ptr<Directory> directory,
                                                   std::shared_ptr<const CacheLayout> layout, DiskOptions options) {
  NAUTILE_ASSIGN(const PrefixKey key, find_key(*directory, options.warn));
  options.model = model_with_layout(options.model, *layout);
  std::unique_ptr<DiskStore> store(new DiskStore(std::move(directory), std::move(layout), std::move(options), key));
  store->list();
  return store;
}

void DiskStore::warn(const std::string& text) const {
  if (options_.warn) options_.warn(text);
}

bool DiskStore::has(const DiskName& name) const {
  std::lock_guard lock(mutex_);
  return index_.find(name) != nullptr;
}

void DiskStore::list() {
  listed_s_ = options_.now_s();
  if (const auto stamp = directory_->change_stamp(); stamp.ok()) stamp_ = stamp.value();
  auto entries = directory_->list();
  if (!entries.ok()) return warn(entries.status().message());
  DiskIndex fresh;
  partial_bytes_ = 0;
  for (const DirectoryEntry& entry : *entries) {
    if (entry.name == kKeyName || ignored_.contains(entry.name)) continue;
    const auto name = DiskName::parse(entry.name);
    if (!entry.ours) {
      ignored_.insert(entry.name);
      warn(fmt::format("{}: not a file of this user; ignored", join_path(directory_->path(), entry.name)));
    } else if (name) {
      const DiskIndex::File* known = index_.find(*name);
      fresh.add(*name, {entry.bytes, std::max(entry.modified_s, known == nullptr ? 0 : known->used_s)});
    } else if (!entry.name.ends_with(kPartialEnd)) {
      ignored_.insert(entry.name);
      warn(fmt::format("{}: not a file of the cache; ignored", join_path(directory_->path(), entry.name)));
    } else if (listed_s_ - entry.modified_s < kPartialAge_s || !directory_->remove(entry.name).ok()) {
      partial_bytes_ += entry.bytes;
    }
  }
  std::lock_guard lock(mutex_);
  std::swap(index_, fresh);
}

void DiskStore::refresh() {
  if (options_.now_s() - listed_s_ < options_.refresh_s) return;
  const auto stamp = directory_->change_stamp();
  if (stamp.ok() && stamp.value() == stamp_) {
    listed_s_ = options_.now_s();
    return;
  }
  list();
}

void DiskStore::forget(const DiskName& name) {
  std::lock_guard lock(mutex_);
  index_.erase(name);
}

// Removes what was used longest ago until `bytes` more fit.
bool DiskStore::make_room(uint64_t bytes) {
  while (index_.bytes() + partial_bytes_ + bytes > options_.budget_bytes) {
    if (index_.size() == 0) return false;
    const DiskName name = index_.first_to_go();
    const Status removed = directory_->remove(name.text());
    if (!removed.ok() && removed.code() != Code::kNotFound) {
      stop_writing(removed);
      return false;
    }
    std::lock_guard lock(mutex_);
    index_.erase(name);
    ++stats_.removed;
  }
  return true;
}

void DiskStore::stop_writing(const Status& why) {
  writing_off_until_s_ = options_.now_s() + options_.retry_s;
  if (!writing_failed_) {
    warn(fmt::format("{}: the prefix cache cannot write ({}); it goes on without, and tries again every {} s",
                     directory_->path(), why.what(), options_.retry_s));
  }
  writing_failed_ = true;
  std::lock_guard lock(mutex_);
  ++stats_.failed_writes;
}

Status DiskStore::write(const DiskHeader& header, std::span<const std::byte> body) {
  const DiskName name{header.id, header.kind, header.length / kBlockTokens};
  if (index_.find(name) != nullptr) return {};
  const int64_t now = options_.now_s();
  if (now < writing_off_until_s_) return {Code::kResourceExhausted, "writing is off after a failure"};
  const uint64_t bytes = kDiskHeaderBytes + body.size() + kDiskChecksumBytes;
  if (bytes > options_.budget_bytes) return {Code::kResourceExhausted, "larger than the budget"};
  if (!make_room(bytes)) return {Code::kResourceExhausted, "no room"};

  const std::string final_name = name.text();
  const std::string partial = partial_name(fmt::format("{}-{}", process_tag_, ++serial_), final_name);
  Status done = directory_->create(partial, encode_disk_file(hasher_, header, body));
  if (done.ok()) done = directory_->rename(partial, final_name);
  if (!done.ok()) {
    (void)directory_->remove(partial);
    stop_writing(done);
    return done;
  }
  writing_failed_ = false;
  ignored_.erase(final_name);
  std::lock_guard lock(mutex_);
  index_.add(name, {bytes, now});
  stats_.written_bytes += bytes;
  return {};
}

Status DiskStore::sync() {
  return directory_->sync();
}

Result<std::vector<std::byte>> DiskStore::read(DiskHeader& expected) {
  const DiskName name{expected.id, expected.kind, expected.length / kBlockTokens};
  const bool is_block = expected.kind == DiskKind::kBlock;
  expected.model = options_.model;
  const size_t largest =
      is_block ? layout_->block_bytes() : SequenceState::snapshot_bytes(*layout_, expected.length, expected.length);
  const std::string text = name.text(), path = join_path(directory_->path(), text);
  auto file = directory_->read(text, kDiskHeaderBytes + largest + kDiskChecksumBytes);
  const Code code = file.status().code();
  if (code == Code::kNotFound || code == Code::kIo) {  // another process needed the room; or it may be there next time
    if (code == Code::kIo) warn(fmt::format("{}: {}; ignored", path, file.status().what()));
    forget(name);
    return file.status();
  }
  Result<std::vector<std::byte>> body = file.status();
  if (file.ok()) {
    body = decode_disk_file(hasher_, std::move(file).value(), expected);
    const size_t right =
        is_block ? largest : SequenceState::snapshot_bytes(*layout_, expected.length, expected.draft_length);
    if (body.ok() && body->size() != right) body = Status(Code::kUnsupported, "the file is of another layout");
  } else if (code == Code::kResourceExhausted) {
    body = Status(Code::kCorrupt, "the file is longer than any of its kind");
  }
  if (body.ok()) {
    std::lock_guard lock(mutex_);
    stats_.read_bytes += kDiskHeaderBytes + body->size() + kDiskChecksumBytes;
    return body;
  }
  const bool broken = body.status().code() == Code::kCorrupt;
  warn(fmt::format("{}: {}; {}", path, body.status().what(), broken ? "removed" : "ignored"));
  if (!broken || !directory_->remove(text).ok()) ignored_.insert(text);
  std::lock_guard lock(mutex_);
  index_.erase(name);
  ++stats_.broken;
  return body;
}

// To the minute, so that a path that is used again costs nothing, and is never of two ages.
void DiskStore::use(std::span<const PrefixId> path) {
  const int64_t now = options_.now_s();
  const auto mark = [&](const DiskName& name) {
    const DiskIndex::File* file = index_.find(name);
    if (file == nullptr || file->used_s / 60 >= now / 60) return;
    if (directory_->set_modified(name.text(), now).code() == Code::kNotFound) return forget(name);
    std::lock_guard lock(mutex_);
    index_.add(name, {file->bytes, now});
  };
  for (size_t i = 0; i < path.size(); ++i) mark({path[i], DiskKind::kBlock, static_cast<int64_t>(i + 1)});
  if (!path.empty()) mark({path.back(), DiskKind::kSnapshot, static_cast<int64_t>(path.size())});
}

DiskStore::Stats DiskStore::stats() const {
  std::lock_guard lock(mutex_);
  Stats out = stats_;
  out.bytes = index_.bytes();
  out.files = index_.size();
  return out;
}

}  // namespace nautile
