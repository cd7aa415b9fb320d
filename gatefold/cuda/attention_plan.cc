#include "gatefold/cuda/attention_plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace gatefold::cuda {
namespace {

int FirstChunk(const AttentionShape& shape, int position) {
  return shape.window > 0 ? std::max(0, position - shape.window + 1) / kChunkTokens : 0;
}

// Whole tokens of one sequence, and all chunks any of them reads.
struct Tile {
  AttentionItem item;
  bool narrow;

  int NumPositions() const { return item.max_position - item.first_chunk * kChunkTokens; }
};

Tile MakeTile(const AttentionShape& shape, std::span<const PlanRow> rows, int first, int n) {
  AttentionItem item{.first_row = first, .n_rows = n, .sequence = rows[first].sequence};
  item.min_position = item.max_position = rows[first].position;
  for (int i = first; i < first + n; ++i) {
    item.min_position = std::min(item.min_position, rows[i].position);
    item.max_position = std::max(item.max_position, rows[i].position);
  }
  item.first_chunk = FirstChunk(shape, item.min_position);
  item.n_chunks = item.max_position / kChunkTokens + 1 - item.first_chunk;
  return {item, n * shape.group() <= kNarrowTileRows};
}

std::vector<Tile> CutTiles(const AttentionShape& shape, std::span<const PlanRow> rows) {
  const int n_rows = static_cast<int>(rows.size());
  const int wide_tokens = kWideTileRows / shape.group();
  std::vector<Tile> tiles;
  for (int first = 0; first < n_rows;) {
    int n = 1;
    while (first + n < n_rows && n < wide_tokens &&
           rows[first + n].sequence == rows[first].sequence) {
      ++n;
    }
    tiles.push_back(MakeTile(shape, rows, first, n));
    first += n;
  }
  return tiles;
}

// Chunks that one block walks: one where a tile is a single warp, else as many as still leave
// enough blocks to fill the device.
int ChunksPerItem(const AttentionShape& shape, const PlanLimits& limits, int n_wide_tiles,
                  const Tile& tile) {
  if (tile.narrow) return 1;
  const int64_t wanted = 2 * static_cast<int64_t>(limits.n_multiprocessors);
  const int64_t blocks = static_cast<int64_t>(n_wide_tiles) * shape.n_kv_heads;
  if (blocks >= wanted) return tile.item.n_chunks;
  const int64_t pieces = (wanted + blocks - 1) / blocks;
  return static_cast<int>((tile.item.n_chunks + pieces - 1) / pieces);
}

class Planner {
 public:
  Planner(const AttentionShape& shape, std::span<const PlanRow> rows, const PlanLimits& limits)
      : shape_(shape), rows_(rows), limits_(limits) {
    plan_.row_slots.assign(rows.size(), 0);
  }

  AttentionPlan Run() {
    std::vector<Tile> tiles = CutTiles(shape_, rows_);
    int n_wide = 0;
    for (const Tile& tile : tiles) n_wide += tile.narrow ? 0 : 1;
    // The longest first: a device is idle while its last block works.
    std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) {
      return a.narrow != b.narrow ? a.narrow : a.NumPositions() > b.NumPositions();
    });
    for (const Tile& tile : tiles) {
      const size_t before = plan_.items.size();
      AddItems(tile, ChunksPerItem(shape_, limits_, n_wide, tile));
      (tile.narrow ? plan_.n_narrow : plan_.n_wide) +=
          static_cast<int>(plan_.items.size() - before);
    }
    return std::move(plan_);
  }

 private:
  void AddItems(const Tile& tile, int chunks_per_item) {
    AttentionItem item = tile.item;
    if (chunks_per_item >= item.n_chunks || !TakeSlots(item)) {
      plan_.items.push_back(item);
      return;
    }
    item.split = 1;
    const int end = item.first_chunk + item.n_chunks;
    for (int chunk = item.first_chunk; chunk < end; chunk += chunks_per_item) {
      item.first_chunk = chunk;
      item.n_chunks = std::min(chunks_per_item, end - chunk);
      plan_.items.push_back(item);
    }
  }

  // All slots of the tile's rows, or none and false.
  bool TakeSlots(const AttentionItem& item) {
    int64_t wanted = 0;
    for (int r = item.first_row; r < item.first_row + item.n_rows; ++r) wanted += NumChunks(r);
    if (plan_.n_slots + wanted > limits_.max_slots) return false;
    for (int r = item.first_row; r < item.first_row + item.n_rows; ++r) {
      plan_.row_slots[r] =
          static_cast<int32_t>(plan_.n_slots - FirstChunk(shape_, rows_[r].position));
      plan_.n_slots += NumChunks(r);
      plan_.combine_rows.push_back(r);
    }
    return true;
  }

  int NumChunks(int row) const {
    const int position = rows_[row].position;
    return position / kChunkTokens + 1 - FirstChunk(shape_, position);
  }

  const AttentionShape shape_;
  const std::span<const PlanRow> rows_;
  const PlanLimits limits_;
  AttentionPlan plan_;
};

}  // namespace

bool AttentionShape::IsServed() const {
  return n_kv_heads > 0 && n_heads > 0 && n_heads % n_kv_heads == 0 && group() <= 16 &&
         (head_dim == 64 || head_dim == 128) && window >= 0 && scale > 0;
}

bool AttentionPlan::PadTo(const PlanSizes& sizes) {
  if (n_narrow > sizes.n_narrow || n_wide > sizes.n_wide || n_slots > sizes.n_slots ||
      static_cast<int>(combine_rows.size()) > sizes.n_combine) {
    return false;
  }
  items.insert(items.begin() + n_narrow, sizes.n_narrow - n_narrow, AttentionItem());
  items.resize(sizes.n_narrow + sizes.n_wide);
  combine_rows.resize(sizes.n_combine, -1);
  n_narrow = sizes.n_narrow;
  n_wide = sizes.n_wide;
  n_slots = sizes.n_slots;
  return true;
}

size_t AttentionPlan::PackedBytes() const {
  return items.size() * sizeof(AttentionItem) +
         (row_slots.size() + combine_rows.size()) * sizeof(int32_t);
}

void AttentionPlan::Pack(void* bytes) const {
  char* to = static_cast<char*>(bytes);
  const auto append = [&to](const auto& values) {
    const size_t n = values.size() * sizeof(values[0]);
    if (n > 0) std::memcpy(to, values.data(), n);
    to += n;
  };
  append(items);
  append(row_slots);
  append(combine_rows);
}

AttentionPlan PlanAttention(const AttentionShape& shape, std::span<const PlanRow> rows,
                            const PlanLimits& limits) {
  return Planner(shape, rows, limits).Run();
}

size_t AttentionWorkspaceBytes(const AttentionShape& shape, int64_t n_slots) {
  return static_cast<size_t>(n_slots) * shape.n_heads * (shape.head_dim + 2) * sizeof(float);
}

}  // namespace gatefold::cuda
