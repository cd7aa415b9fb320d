#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/checkpoint/safetensors.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// The weights of one Hugging Face model folder: `model.safetensors`, or, where that is missing, the
// files that `model.safetensors.index.json` names. Files are mapped, not read: opening costs their
// headers, and a tensor costs disk reads when its bytes are touched. Views live as long as the
// Checkpoint. A file that shrinks after Open() makes the process that touches it die of SIGBUS:
// replace folders, do not write into them.
// Threads: safe.
class Checkpoint {
 public:
  // Refuses malformed files (see safetensors.h) and indexes: names that leave the folder, missing
  // files, two names of one file, a mapped tensor that its file lacks, a tensor in two files.
  // Errors: NotFound (folder or file), InvalidArgument (content).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  // Data may be unaligned. Errors: NotFound; Unimplemented for a type that is not f32, bf16, f16.
  absl::StatusOr<TensorView> Find(absl::string_view name) const;

  bool Contains(absl::string_view name) const { return Entry(name) != nullptr; }

  // Sorted.
  const std::vector<std::string>& names() const { return names_; }

  // Of any type; null if there is no such tensor.
  const SafetensorsTensor* Entry(absl::string_view name) const;

  uint64_t total_bytes() const { return total_bytes_; }  // of tensor data
  const std::string& dir() const { return dir_; }

 private:
  Checkpoint() = default;
  absl::Status AddFile(const std::string& file_name);
  absl::Status OpenIndexed(const std::string& index_path);
  absl::Status SortByName();

  std::string dir_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::string> names_;
  std::vector<const SafetensorsTensor*> tensors_;  // parallel to names_
  uint64_t total_bytes_ = 0;
};

// Asks the kernel to read [data, data + bytes) of a mapping ahead. Never blocks on the disk.
void PrefetchPages(const void* data, size_t bytes);

// Takes the pages that lie wholly inside [data, data + bytes) of a mapping out of this process's
// memory; touching them again reads the page cache or the disk. Call it on tensors that were
// copied, so that a service does not hold its weights twice.
void DropPages(const void* data, size_t bytes);

// Tells the kernel that [data, data + bytes) of a mapping will be read in scattered places, so that
// it does not read ahead; or that this is over.
void ExpectScatteredReads(const void* data, size_t bytes, bool scattered);

// A fingerprint of the named tensors, all present: SHA-256 (hex) over each one's name, type, shape
// and some of its bytes, in order of name, whatever file holds it.
// Checkpoints of up to kWholeDigestBytes are hashed whole. Of larger ones every tensor gives its
// share of that budget, in blocks of 4 KiB spread evenly from its first to its last byte, at least
// one. So it tells models and fine-tunes apart in seconds, but not a flipped bit in a large file:
// it guards against mixing checkpoints, not against a rotten disk.
inline constexpr uint64_t kWholeDigestBytes = uint64_t{16} << 20;
std::string WeightDigest(const Checkpoint& checkpoint, const std::vector<std::string>& names);

}  // namespace gatefold
