#include <algorithm>
#include <string>

#include "gatefold/base/check.h"
#include "gatefold/checkpoint/checkpoint.h"
#include "gatefold/checkpoint/sha256.h"

namespace gatefold {
namespace {

constexpr uint64_t kBlockBytes = 4096;

void AddSamples(const SafetensorsTensor& tensor, uint64_t budget_bytes, Sha256* hash) {
  const uint64_t size = tensor.size_bytes();
  if (size <= budget_bytes) {
    hash->AddBytes(tensor.data, size);
    return;
  }
  ExpectScatteredReads(tensor.data, size, true);
  const uint64_t n_blocks = budget_bytes / kBlockBytes;
  const uint64_t last = size - kBlockBytes;  // where the last block begins
  for (uint64_t i = 0; i < n_blocks; ++i) {
    // In 128 bits: i * last may overflow 64.
    const uint64_t begin =
        n_blocks == 1
            ? last / 2
            : static_cast<uint64_t>(static_cast<unsigned __int128>(i) * last / (n_blocks - 1));
    hash->AddBytes(tensor.data + begin, kBlockBytes);
  }
  ExpectScatteredReads(tensor.data, size, false);
}

}  // namespace

std::string WeightDigest(const Checkpoint& checkpoint, const std::vector<std::string>& names) {
  std::vector<const SafetensorsTensor*> tensors;
  uint64_t total = 0;
  for (const std::string& name : names) {
    tensors.push_back(checkpoint.Entry(name));
    GF_CHECK(tensors.back() != nullptr);
    total += tensors.back()->size_bytes();
  }
  std::sort(
      tensors.begin(), tensors.end(),
      [](const SafetensorsTensor* a, const SafetensorsTensor* b) { return a->name < b->name; });
  const uint64_t share = kWholeDigestBytes / std::max<uint64_t>(1, tensors.size());
  const uint64_t budget = total <= kWholeDigestBytes
                              ? kWholeDigestBytes
                              : std::max(kBlockBytes, share / kBlockBytes * kBlockBytes);
  Sha256 hash;
  for (const SafetensorsTensor* tensor : tensors) {
    hash.AddString(tensor->name);
    hash.AddString(tensor->dtype);
    hash.AddNumber(tensor->shape.size());
    for (int64_t dim : tensor->shape) hash.AddNumber(static_cast<uint64_t>(dim));
    AddSamples(*tensor, budget, &hash);
    // Each touched block maps its neighbourhood too; over a large model that would add up.
    DropPages(tensor->data, tensor->size_bytes());
  }
  return hash.FinishHex();
}

}  // namespace gatefold
