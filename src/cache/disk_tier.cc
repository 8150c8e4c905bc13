// The queue and its thread.
#include "cache/disk_tier.h"

#include <algorithm>

namespace nautile {
namespace {

// A mark of use is dropped when so much waits already.
constexpr size_t kMaxUses = 1024;

std::string_view words_for(const Status& status) {
  switch (status.code()) {
    case Code::kCorrupt:
      return "disk file torn or damaged";
    case Code::kUnsupported:
      return "disk file of another model";
    case Code::kNotFound:
      return "disk file gone";
    default:
      return "disk read failed";
  }
}

DiskHeader header_of(DiskKind kind, const CacheScope& scope, const PrefixId& id, std::span<const int32_t> tokens,
                     size_t block) {
  DiskHeader header;
  header.kind = kind;
  header.scope = scope;
  header.id = id;
  header.length = static_cast<int64_t>(block + 1) * kBlockTokens;
  std::ranges::copy(tokens.subspan(block * kBlockTokens, kBlockTokens), header.tokens.begin());
  return header;
}

}  // namespace

Result<std::unique_ptr<DiskTier>> DiskTier::open(std::unique_ptr<Directory> directory,
                                                 std::shared_ptr<const CacheLayout> layout, DiskOptions options) {
  NAUTILE_ASSIGN(auto store, DiskStore::open(std::move(directory), std::move(layout), std::move(options)));
  return std::unique_ptr<DiskTier>(new DiskTier(std::move(store)));
}

Result<std::unique_ptr<DiskTier>> DiskTier::open(const std::string& directory,
                                                 std::shared_ptr<const CacheLayout> layout, DiskOptions options) {
  NAUTILE_ASSIGN(auto opened, open_private_directory(directory));
  return open(std::move(opened), std::move(layout), std::move(options));
}

DiskTier::DiskTier(std::unique_ptr<DiskStore> store) : store_(std::move(store)), thread_([this] { run(); }) {}

DiskTier::~DiskTier() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  thread_.join();
}

bool DiskTier::queued_or_there(const DiskName& name) const {
  return queued_.contains(name) || store_->has(name);
}

bool DiskTier::has_snapshot(const PrefixId& id, int64_t length) const {
  std::lock_guard lock(mutex_);
  return queued_or_there({id, DiskKind::kSnapshot, length / kBlockTokens});
}

bool DiskTier::write(CacheScope scope, std::span<const PrefixId> ids, std::span<const int32_t> tokens,
                     const Snapshot& snapshot) {
  uint64_t path_bytes = snapshot.bytes();
  for (const auto& block : snapshot.blocks) path_bytes += block->size();
  std::lock_guard lock(mutex_);
  bool written = false;
  const auto add = [&](DiskKind kind, size_t block, const std::shared_ptr<const std::vector<std::byte>>& body) {
    if (queued_or_there({ids[block], kind, static_cast<int64_t>(block + 1)})) return true;
    WriteJob job{header_of(kind, scope, ids[block], tokens, block), body};
    job.header.model = store_->options().model;
    if (kind == DiskKind::kSnapshot) job.header.draft_length = snapshot.draft_length;
    if (queued_bytes_ + bytes_of(job) + ids.size_bytes() > store_->options().queue_bytes) return false;
    queued_.insert(name_of(job));
    queued_bytes_ += bytes_of(job);
    writes_.emplace_back(std::move(job));
    return written = true;
  };
  bool all = path_bytes <= store_->options().budget_bytes;
  for (size_t i = 0; i < ids.size() && all; ++i) all = add(DiskKind::kBlock, i, snapshot.blocks[i]);
  all = all && add(DiskKind::kSnapshot, ids.size() - 1, snapshot.rows);
  if (!all) ++dropped_;
  mark_used(ids, written);
  return all;
}

std::shared_ptr<DiskRead> DiskTier::read(CacheScope scope, std::span<const PrefixId> ids,
                                         std::span<const int32_t> tokens,
                                         std::span<const std::shared_ptr<const CacheBlock>> known, int64_t least,
                                         int64_t most) {
  auto read = std::make_shared<DiskRead>();
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t blocks = static_cast<int64_t>(i + 1), length = blocks * kBlockTokens;
    if (length > most || (i >= known.size() && !store_->has({ids[i], DiskKind::kBlock, blocks}))) break;
    if (length > least && store_->has({ids[i], DiskKind::kSnapshot, blocks})) read->lengths.push_back(length);
  }
  if (read->lengths.empty()) return nullptr;
  std::ranges::reverse(read->lengths);
  const size_t blocks = static_cast<size_t>(read->lengths.front() / kBlockTokens);
  read->scope = scope;
  read->ids.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(blocks));
  read->tokens.assign(tokens.begin(), tokens.begin() + read->lengths.front());
  read->snapshot.blocks.assign(known.begin(),
                               known.begin() + static_cast<std::ptrdiff_t>(std::min(known.size(), blocks)));
  std::lock_guard lock(mutex_);
  reads_.push_back(read);
  work_.notify_one();
  return read;
}

void DiskTier::use(std::span<const PrefixId> path) {
  std::lock_guard lock(mutex_);
  mark_used(path, false);
}

// Precondition: mutex_ is held.
void DiskTier::mark_used(std::span<const PrefixId> path, bool written) {
  if (!written && (writes_.size() >= kMaxUses || queued_bytes_ + path.size_bytes() > store_->options().queue_bytes)) {
    return;
  }
  queued_bytes_ += path.size_bytes();
  writes_.emplace_back(UseJob{{path.begin(), path.end()}, written});
  work_.notify_one();
}

void DiskTier::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return reads_.empty() && writes_.empty() && !busy_; });
}

DiskTier::Stats DiskTier::stats() const {
  Stats out{store_->stats(), 0, 0, 0};
  std::lock_guard lock(mutex_);
  out.queued_bytes = queued_bytes_;
  out.queued_files = queued_.size();
  out.dropped = dropped_;
  return out;
}

void DiskTier::run() {
  const auto refresh = std::chrono::seconds(std::max<int64_t>(1, store_->options().refresh_s));
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait_for(lock, refresh, [&] { return stop_ || !reads_.empty() || !writes_.empty(); });
    if (stop_ && writes_.empty()) return;  // nobody waits for reads any more
    busy_ = true;
    if (!reads_.empty()) {
      const std::shared_ptr<DiskRead> read = reads_.front().lock();
      reads_.pop_front();
      lock.unlock();
      if (read != nullptr) do_read(*read);
      lock.lock();
    } else if (!writes_.empty()) {
      const auto job = std::move(writes_.front());
      writes_.pop_front();
      lock.unlock();
      if (const auto* use = std::get_if<UseJob>(&job)) {
        if (use->written) (void)store_->sync();  // what fails here shows at the next write
        store_->use(use->path);
        lock.lock();
        queued_bytes_ -= use->path.size() * sizeof(PrefixId);
      } else {
        const auto& write = std::get<WriteJob>(job);
        (void)store_->write(write.header, *write.body);
        lock.lock();
        queued_.erase(name_of(write));
        queued_bytes_ -= bytes_of(write);
      }
    }
    lock.unlock();
    store_->refresh();
    lock.lock();
    busy_ = false;
    if (reads_.empty() && writes_.empty()) idle_.notify_all();
  }
}

// Blocks from the first, then the longest snapshot whose blocks are all there.
void DiskTier::do_read(DiskRead& read) {
  const auto fail = [&](const Status& status, const PrefixId& id) {
    if (!read.failure.empty()) return;
    read.failure = words_for(status);
    read.lost = id;
  };
  auto& blocks = read.snapshot.blocks;
  while (blocks.size() < read.ids.size()) {
    DiskHeader expected = header_of(DiskKind::kBlock, read.scope, read.ids[blocks.size()], read.tokens, blocks.size());
    auto body = store_->read(expected);
    if (!body.ok()) {
      fail(body.status(), read.ids.back());
      break;
    }
    blocks.push_back(std::make_shared<const CacheBlock>(std::move(body).value()));
  }
  for (const int64_t length : read.lengths) {
    const size_t count = static_cast<size_t>(length / kBlockTokens);
    if (count > blocks.size()) continue;
    DiskHeader expected = header_of(DiskKind::kSnapshot, read.scope, read.ids[count - 1], read.tokens, count - 1);
    auto body = store_->read(expected);
    if (!body.ok()) {
      fail(body.status(), read.ids[count - 1]);
      continue;
    }
    blocks.resize(count);
    read.snapshot.length = length;
    read.snapshot.draft_length = expected.draft_length;
    read.snapshot.rows = std::make_shared<const std::vector<std::byte>>(std::move(body).value());
    store_->use(std::span(read.ids).first(count));
    break;
  }
  read.done.store(true, std::memory_order_release);
}

}  // namespace nautile
