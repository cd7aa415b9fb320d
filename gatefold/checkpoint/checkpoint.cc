#include "gatefold/checkpoint/checkpoint.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/mapped_file.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

// A published index of 90,000 tensors has 9 MB.
constexpr JsonLimits kIndexLimits = {
    .max_bytes = size_t{64} << 20, .max_depth = 16, .max_values = 4'000'000};
constexpr size_t kMaxFiles = 10'000;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// An index may only name files that lie beside it.
absl::Status CheckFileName(const std::string& name) {
  if (name.empty() || name == "." || absl::StrContains(name, "..") ||
      name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", PrintableName(name), "\" is not the name of a file beside the index"));
  }
  return absl::OkStatus();
}

size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// For all pages that the range touches. Advice may fail without harm.
void Advise(const void* data, size_t bytes, int advice) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / PageBytes() * PageBytes();
  const uintptr_t end = reinterpret_cast<uintptr_t>(data) + bytes;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->dir_ = dir;
  const std::string index_path = absl::StrCat(dir, "/", kIndexFile);
  if (Exists(absl::StrCat(dir, "/", kSingleFile))) {
    GF_RETURN_IF_ERROR(checkpoint->AddFile(kSingleFile));
  } else if (Exists(index_path)) {
    GF_RETURN_IF_ERROR(checkpoint->OpenIndexed(index_path));
  } else {
    return absl::NotFoundError(
        absl::StrCat(dir, " has neither ", kSingleFile, " nor ", kIndexFile));
  }
  GF_RETURN_IF_ERROR(checkpoint->SortByName());
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& file_name) {
  GF_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(absl::StrCat(dir_, "/", file_name)));
  for (const SafetensorsTensor& tensor : file->tensors()) {
    tensors_.push_back(&tensor);
    total_bytes_ += tensor.size_bytes();
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::SortByName() {
  std::sort(
      tensors_.begin(), tensors_.end(),
      [](const SafetensorsTensor* a, const SafetensorsTensor* b) { return a->name < b->name; });
  names_.reserve(tensors_.size());
  for (const SafetensorsTensor* tensor : tensors_) {
    if (!names_.empty() && names_.back() == tensor->name) {
      return absl::InvalidArgumentError(
          absl::StrCat(dir_, ": tensor \"", PrintableName(tensor->name), "\" is in two files"));
    }
    names_.push_back(tensor->name);
  }
  return absl::OkStatus();
}

// Tensors that a file has and the index does not name are taken too, as the file is the truth:
// whether the model has a use for them is for ModelWeights to say.
absl::Status Checkpoint::OpenIndexed(const std::string& index_path) {
  GF_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(index_path, kIndexLimits.max_bytes));
  GF_ASSIGN_OR_RETURN(const nlohmann::json index, ParseStrictJson(text, index_path, kIndexLimits));
  const auto refuse = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": ", parts...));
  };
  if (!index.is_object()) return refuse("is not an object");
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) return refuse("has no object \"weight_map\"");

  std::set<std::string> file_names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      return refuse("the file of \"", PrintableName(tensor), "\" is no string");
    file_names.insert(file.get<std::string>());
  }
  if (file_names.size() > kMaxFiles) {
    return refuse("names ", file_names.size(), " files; at most ", kMaxFiles, " are opened");
  }
  std::map<std::string, std::set<absl::string_view>> tensors_of;
  std::map<std::pair<dev_t, ino_t>, std::string> opened;
  for (const std::string& name : file_names) {
    GF_RETURN_IF_ERROR(Annotate(CheckFileName(name), index_path));
    // Links cost nothing, and each would take the memory of the file's header again.
    struct stat info;
    if (stat(absl::StrCat(dir_, "/", name).c_str(), &info) == 0) {
      const auto [first, is_new] = opened.try_emplace({info.st_dev, info.st_ino}, name);
      if (!is_new) {
        return refuse(PrintableName(first->second), " and ", PrintableName(name),
                      " are the same file");
      }
    }
    GF_RETURN_IF_ERROR(Annotate(AddFile(name), index_path));
    for (const SafetensorsTensor& tensor : files_.back()->tensors()) {
      tensors_of[name].insert(tensor.name);
    }
  }
  for (const auto& [tensor, file] : map->items()) {
    const std::string& name = file.get_ref<const std::string&>();
    if (tensors_of[name].count(tensor) > 0) continue;
    return refuse("tensor \"", PrintableName(tensor), "\" is not in ", PrintableName(name));
  }
  return absl::OkStatus();
}

const SafetensorsTensor* Checkpoint::Entry(absl::string_view name) const {
  const auto found =
      std::lower_bound(names_.begin(), names_.end(), name,
                       [](const std::string& a, absl::string_view b) { return a < b; });
  if (found == names_.end() || *found != name) return nullptr;
  return tensors_[static_cast<size_t>(found - names_.begin())];
}

absl::StatusOr<TensorView> Checkpoint::Find(absl::string_view name) const {
  const SafetensorsTensor* tensor = Entry(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", PrintableName(name)));
  }
  const std::optional<DType> dtype = ParseWeightDType(tensor->dtype);
  if (!dtype.has_value()) {
    return absl::UnimplementedError(absl::StrCat("tensor ", PrintableName(name), " is of type ",
                                                 tensor->dtype,
                                                 "; weights may be F32, BF16 or F16"));
  }
  return TensorView{*dtype, tensor->shape, tensor->data};
}

void PrefetchPages(const void* data, size_t bytes) { Advise(data, bytes, MADV_WILLNEED); }

void ExpectScatteredReads(const void* data, size_t bytes, bool scattered) {
  Advise(data, bytes, scattered ? MADV_RANDOM : MADV_NORMAL);
}

void DropPages(const void* data, size_t bytes) {
  const uintptr_t page = PageBytes();
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace gatefold
