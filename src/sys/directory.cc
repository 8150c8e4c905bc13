// A directory held by its descriptor; every name is opened relative to it.
#include "sys/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "sys/file.h"

namespace nautile {
namespace {

Code code_of(int error) {
  if (error == ENOENT) return Code::kNotFound;
  if (error == ENOSPC || error == EDQUOT) return Code::kResourceExhausted;
  if (error == EEXIST || error == ELOOP) return Code::kInvalidArgument;
  return Code::kIo;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

class RealDirectory : public Directory {
 public:
  RealDirectory(std::string path, int fd) : path_(std::move(path)), directory_(fd) {}

  const std::string& path() const override { return path_; }

  Result<std::vector<DirectoryEntry>> list() override {
    // A descriptor of its own, since reading moves its place.
    const int fd = ::openat(directory_.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return error("cannot open", {});
    DIR* stream = ::fdopendir(fd);
    if (stream == nullptr) {
      ::close(fd);
      return error("cannot list", {});
    }
    std::vector<DirectoryEntry> entries;
    while (const dirent* found = ::readdir(stream)) {
      const std::string name = found->d_name;
      struct stat info = {};
      if (name == "." || name == ".." || ::fstatat(directory_.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
        continue;  // gone meanwhile
      }
      entries.push_back({name, static_cast<uint64_t>(info.st_size), info.st_mtim.tv_sec, ours(info)});
    }
    ::closedir(stream);
    std::ranges::sort(entries, {}, &DirectoryEntry::name);
    return entries;
  }

  Result<int64_t> change_stamp() override {
    struct stat info = {};
    if (::fstat(directory_.fd(), &info) != 0) return error("cannot look at", {});
    return static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
  }

  Result<std::vector<std::byte>> read(const std::string& name, size_t max_bytes) override {
    const Descriptor file(::openat(directory_.fd(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (file.fd() < 0) return error("cannot open", name);
    struct stat info = {};
    if (::fstat(file.fd(), &info) != 0) return error("cannot look at", name);
    if (!ours(info)) return Status(Code::kInvalidArgument, "is not a file of this user", join_path(path_, name));
    if (static_cast<uint64_t>(info.st_size) > max_bytes) {
      return Status(Code::kResourceExhausted, fmt::format("has {} bytes, more than {}", info.st_size, max_bytes),
                    join_path(path_, name));
    }
    std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t got = ::read(file.fd(), bytes.data() + done, bytes.size() - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return error("cannot read", name);
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    bytes.resize(done);
    return bytes;
  }

  Status create(const std::string& name, std::span<const std::byte> bytes) override {
    const Descriptor file(
        ::openat(directory_.fd(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (file.fd() < 0) return error("cannot create", name);
    while (!bytes.empty()) {
      const ssize_t written = ::write(file.fd(), bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return error("cannot write", name);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
    if (::fsync(file.fd()) != 0) return error("cannot sync", name);
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::renameat(directory_.fd(), from.c_str(), directory_.fd(), to.c_str()) != 0)
      return error("cannot rename", from);
    return {};
  }

  Status rename_new(const std::string& from, const std::string& to) override {
    if (::linkat(directory_.fd(), from.c_str(), directory_.fd(), to.c_str(), 0) != 0) return error("cannot name", to);
    return remove(from);
  }

  Status remove(const std::string& name) override {
    if (::unlinkat(directory_.fd(), name.c_str(), 0) != 0) return error("cannot remove", name);
    return {};
  }

  Status set_modified(const std::string& name, int64_t modified_s) override {
    const timespec times[2] = {{0, UTIME_OMIT}, {modified_s, 0}};
    if (::utimensat(directory_.fd(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
      return error("cannot set the time of", name);
    }
    return {};
  }

  Status sync() override {
    if (::fsync(directory_.fd()) != 0) return error("cannot sync", {});
    return {};
  }

 private:
  static bool ours(const struct stat& info) { return S_ISREG(info.st_mode) && info.st_uid == ::geteuid(); }
  Status error(const char* what, const std::string& name) const {
    const int number = errno;
    return {code_of(number), fmt::format("{}: {}", what, std::strerror(number)),
            name.empty() ? path_ : join_path(path_, name)};
  }

  std::string path_;
  Descriptor directory_;
};

}  // namespace

Result<std::unique_ptr<Directory>> open_private_directory(const std::string& path) {
  const auto failed = [&](const char* what) {
    const int number = errno;
    return Status(code_of(number), fmt::format("{}: {}", what, std::strerror(number)), path);
  };
  std::error_code ignored;  // what is wrong shows at the next step
  const auto parent = std::filesystem::absolute(path, ignored).lexically_normal().parent_path();
  std::filesystem::create_directories(parent, ignored);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed("cannot make the directory");
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("cannot open the directory");
  auto directory = std::make_unique<RealDirectory>(path, fd);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return failed("cannot look at the directory");
  if (info.st_uid != ::geteuid()) {
    return Status(Code::kInvalidArgument, "the directory belongs to another user", path,
                  "name a directory of your own");
  }
  if ((info.st_mode & 077) != 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("others may enter the directory (mode {:04o})", info.st_mode & 07777), path,
                  "chmod 700 it");
  }
  return std::unique_ptr<Directory>(std::move(directory));
}

}  // namespace nautile
