// POSIX files behind the FileSystem interface.
#include "sys/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace nautile {
namespace {

Status system_error(const std::string& what, const std::string& path) {
  const int error = errno;
  return {error == ENOENT ? Code::kNotFound : Code::kIo, fmt::format("{}: {}", what, std::strerror(error)), path};
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, int mode = 0) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
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
    return MappedFile(static_cast<const std::byte*>(data), bytes);
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
