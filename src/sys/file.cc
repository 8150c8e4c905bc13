// POSIX files behind the FileSystem interface.
#include "sys/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace nautile {
namespace {

Status system_error(const std::string& what, const std::string& path) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return {error == ENOENT ? Code::kNotFound : full ? Code::kResourceExhausted : Code::kIo,
          fmt::format("{}: {}", what, std::strerror(error)), path};
}

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, int mode = 0) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  int fd() const { return fd_; }

 private:
  int fd_;
};

class RealWriter : public FileWriter {
 public:
  // `file` is PATH.partial, empty and locked by this process.
  RealWriter(Descriptor file, std::string path, std::string partial)
      : file_(std::move(file)), path_(std::move(path)), partial_(std::move(partial)) {}
  ~RealWriter() override {
    if (!finished_) ::unlink(partial_.c_str());
  }

  Status reserve(uint64_t bytes) {
    const auto size = static_cast<off_t>(bytes);
    if (::fallocate(file_.fd(), 0, 0, size) == 0) return {};
    if (errno == ENOSPC || errno == EDQUOT) {
      struct statvfs disk = {};
      ::fstatvfs(file_.fd(), &disk);
      return {Code::kResourceExhausted,
              fmt::format("the file takes {:.2f} GB, the disk has {:.2f} GB left", static_cast<double>(bytes) / 1e9,
                          static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize) / 1e9),
              path_, "make room, or name a place on another disk"};
    }
    // Some file systems reserve nothing; writing will tell.
    if (errno != EOPNOTSUPP || ::ftruncate(file_.fd(), size) != 0) return system_error("cannot reserve room for", path_);
    return {};
  }

  Status write(uint64_t offset, std::span<const std::byte> bytes) override {
    const auto begin = static_cast<off_t>(offset);
    const size_t size = bytes.size();
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(file_.fd(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return system_error("cannot write", partial_);
      bytes = bytes.subspan(static_cast<size_t>(written));
      offset += static_cast<uint64_t>(written);
    }
    // The disk starts now instead of when memory is full of what it has not taken yet.
    (void)::sync_file_range(file_.fd(), begin, static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
    return {};
  }

  Status finish() override {
    if (::fsync(file_.fd()) != 0) return system_error("cannot sync", partial_);
    if (::rename(partial_.c_str(), path_.c_str()) != 0) return system_error("cannot rename to", path_);
    finished_ = true;
    const std::string parent = std::filesystem::path(path_).parent_path().string();
    const Descriptor directory(parent.empty() ? "." : parent, O_RDONLY | O_DIRECTORY);
    if (directory.fd() >= 0) (void)::fsync(directory.fd());
    return {};
  }

 private:
  Descriptor file_;
  std::string path_, partial_;
  bool finished_ = false;
};

class RealFiles : public FileSystem {
 public:
  Result<std::string> read(const std::string& path, size_t max_bytes) override {
    NAUTILE_ASSIGN(MappedFile file, map(path));
    if (file.bytes().size() > max_bytes) {
      return Status(Code::kResourceExhausted,
                    fmt::format("the file has {} bytes, more than the {} expected of such a file", file.bytes().size(),
                                max_bytes),
                    path);
    }
    return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  }

  Result<MappedFile> map(const std::string& path) override {
    Descriptor file(path, O_RDONLY);
    if (file.fd() < 0) return system_error("cannot open", path);
    struct stat info = {};
    if (::fstat(file.fd(), &info) != 0) return system_error("cannot look at", path);
    if (!S_ISREG(info.st_mode)) return Status(Code::kInvalidArgument, "is not a regular file", path);
    if (info.st_size == 0) return MappedFile();
    const size_t bytes = static_cast<size_t>(info.st_size);
    void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
    if (data == MAP_FAILED) return system_error("cannot map", path);
    return MappedFile(static_cast<const std::byte*>(data), bytes, nanoseconds(info.st_mtim));
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
      names.push_back(it->path().filename().string());
    }
    if (error) {
      return Status(error == std::errc::no_such_file_or_directory ? Code::kNotFound : Code::kIo,
                    "cannot list the directory: " + error.message(), directory);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  bool exists(const std::string& path) override { return ::access(path.c_str(), F_OK) == 0; }

  Status write(const std::string& path, std::string_view bytes) override {
    const std::string partial = path + ".partial";
    {
      Descriptor file(partial, O_WRONLY | O_CREAT | O_TRUNC, 0644);
      if (file.fd() < 0) return system_error("cannot create", partial);
      while (!bytes.empty()) {
        const ssize_t written = ::write(file.fd(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return system_error("cannot write", partial);
        bytes.remove_prefix(static_cast<size_t>(written));
      }
      if (::fsync(file.fd()) != 0) return system_error("cannot sync", partial);
    }
    if (::rename(partial.c_str(), path.c_str()) != 0) return system_error("cannot rename to", path);
    return {};
  }

  Result<std::unique_ptr<FileWriter>> create(const std::string& path, uint64_t bytes) override {
    const std::string partial = path + ".partial";
    for (int attempt = 0; attempt < 100; ++attempt) {
      Descriptor file(partial, O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
      if (file.fd() < 0) return system_error("cannot create", partial);
      struct flock whole = {};
      whole.l_type = F_WRLCK;
      whole.l_whence = SEEK_SET;
      if (::fcntl(file.fd(), F_OFD_SETLK, &whole) != 0) {
        if (errno != EAGAIN && errno != EACCES) return system_error("cannot lock", partial);
        return Status(Code::kIo, "another process is writing this file", path, "wait until it has finished");
      }
      // Between opening and locking, the writer before may have given the file its name or removed it.
      struct stat held = {}, named = {};
      if (::fstat(file.fd(), &held) != 0 || ::stat(partial.c_str(), &named) != 0) continue;
      if (held.st_ino != named.st_ino || held.st_dev != named.st_dev) continue;
      if (!S_ISREG(held.st_mode)) return Status(Code::kInvalidArgument, "is not a regular file", partial);
      if (::ftruncate(file.fd(), 0) != 0) return system_error("cannot empty", partial);
      auto writer = std::make_unique<RealWriter>(std::move(file), path, partial);
      NAUTILE_RETURN_IF_ERROR(writer->reserve(bytes));
      return std::unique_ptr<FileWriter>(std::move(writer));
    }
    return Status(Code::kIo, "other processes keep writing this file", path);
  }
};

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);
}

std::unique_ptr<FileSystem> real_files() {
  return std::make_unique<RealFiles>();
}

std::string join_path(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

}  // namespace nautile
