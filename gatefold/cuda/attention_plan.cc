#include "gatefold/cuda/attention_plan.h"

#include <algorithm>
#include <cstring>
#include <queue>
#include <utility>

namespace gatefold::cuda {
namespace {

// Blocks that a multiprocessor holds at a time.
int WorkersPerProcessor(AttentionKernels kernels, bool narrow) {
  if (kernels == AttentionKernels::kHopper) return narrow ? 2 : 1;
  return narrow ? 3 : 2;
}

// A split of wide tiles writes and reads parts that weigh about as much as what it saves, unless
// most workers had nothing to do.
constexpr int kFewestPieces = 3;

int FirstChunk(const AttentionShape& shape, int position) {
  return shape.window > 0 ? std::max(0, position - shape.window + 1) / kChunkTokens : 0;
}

// Whole tokens of one sequence, and all chunks any of them reads.
using Tile = AttentionSegment;

Tile MakeTile(const AttentionShape& shape, std::span<const PlanRow> rows, int first, int n) {
  Tile tile{.first_row = first,
            .n_rows = static_cast<int16_t>(n),
            .sequence = rows[first].sequence,
            .n_segments = 1};
  tile.min_position = tile.max_position = rows[first].position;
  for (int i = first; i < first + n; ++i) {
    tile.min_position = std::min(tile.min_position, rows[i].position);
    tile.max_position = std::max(tile.max_position, rows[i].position);
  }
  tile.first_chunk = FirstChunk(shape, tile.min_position);
  tile.n_chunks = tile.max_position / kChunkTokens + 1 - tile.first_chunk;
  return tile;
}

class Planner {
 public:
  Planner(const AttentionShape& shape, std::span<const PlanRow> rows, const PlanLimits& limits)
      : shape_(shape), rows_(rows), limits_(limits) {
    plan_.kernels = limits.kernels;
    plan_.row_slots.assign(rows.size(), 0);
    for (const PlanRow& row : rows) {
      if (static_cast<size_t>(row.sequence) >= first_new_.size()) {
        first_new_.resize(row.sequence + 1, INT32_MAX);
      }
      first_new_[row.sequence] = std::min(first_new_[row.sequence], row.position);
    }
  }

  AttentionPlan Run() {
    CutTiles();
    DealNarrow();
    const size_t n_narrow = workers_.size();
    DealWide();
    plan_.n_narrow = static_cast<int>(n_narrow);
    plan_.n_wide = static_cast<int>(workers_.size() - n_narrow);
    Chain();
    return std::move(plan_);
  }

 private:
  using Worker = std::vector<AttentionSegment>;

  // Wide tiles of as many pairs as let the workers end soonest. Of Hopper's three warpgroups two
  // alone take three quarters of the time of all, one takes half.
  void CutTiles() {
    const int most = WideTilePairs(limits_.kernels);
    int64_t least = INT64_MAX;
    int best = most;
    for (int pairs = most; pairs >= 64; pairs -= 64) {
      CutTiles(pairs);
      int64_t total = 0, longest = 0;
      for (const Tile& tile : wide_) {
        const int64_t cost = Cost(tile) * (pairs + 64);
        total += cost * shape_.n_kv_heads;
        longest = std::max(longest, cost);
      }
      const int64_t end = std::max(longest, total / NumWorkers(false));
      if (end < least) {
        least = end;
        best = pairs;
      }
    }
    CutTiles(best);
  }

  void CutTiles(int pairs) {
    narrow_.clear();
    wide_.clear();
    const int n_rows = static_cast<int>(rows_.size());
    const int most = pairs / shape_.group();
    for (int first = 0; first < n_rows;) {
      int n = 1;
      while (first + n < n_rows && n < most && rows_[first + n].sequence == rows_[first].sequence) {
        ++n;
      }
      Tile tile = MakeTile(shape_, rows_, first, n);
      tile.first_new = first_new_[tile.sequence];
      (n * shape_.group() <= kNarrowTilePairs ? narrow_ : wide_).push_back(tile);
      first += n;
    }
    plan_.narrow_pairs = 8;
    for (const Tile& tile : narrow_) {
      if (tile.n_rows * shape_.group() > 8) plan_.narrow_pairs = kNarrowTilePairs;
    }
  }

  // In positions read, and what a start takes.
  static int64_t Cost(const AttentionSegment& s) {
    const int end = std::min(s.max_position + 1, (s.first_chunk + s.n_chunks) * kChunkTokens);
    return int64_t{end} - int64_t{s.first_chunk} * kChunkTokens + 128;
  }

  int64_t NumWorkers(bool narrow) const {
    return int64_t{limits_.n_multiprocessors} * WorkersPerProcessor(limits_.kernels, narrow);
  }

  // All chunks in a row, as many to each worker. So a worker splits at most the first and the last
  // of its tiles, and most parts are merged where they are made.
  void DealNarrow() {
    int64_t total = 0;
    for (const Tile& tile : narrow_) total += int64_t{tile.n_chunks} * shape_.n_kv_heads;
    if (total == 0) return;
    const int64_t workers = NumWorkers(true);
    const int64_t quota = (total + workers - 1) / workers;
    int64_t room = 0;  // of the last worker, in chunks
    for (const Tile& tile : narrow_) {
      bool has_slots = false, may_split = true;
      for (int head = 0; head < shape_.n_kv_heads; ++head) {
        if (room <= 0) {
          workers_.emplace_back();
          room = quota;
        }
        if (tile.n_chunks > room && !has_slots && may_split) {
          has_slots = may_split = TakeSlots(tile);
        }
        std::vector<std::pair<size_t, AttentionSegment>> pieces;
        for (int done = 0; done < tile.n_chunks;) {
          if (room <= 0) {
            workers_.emplace_back();
            room = quota;
          }
          AttentionSegment segment = tile;
          segment.kv_head = static_cast<int16_t>(head);
          segment.first_chunk = tile.first_chunk + done;
          segment.n_chunks = tile.n_chunks - done;
          if (has_slots) {
            segment.n_chunks = static_cast<int32_t>(std::min<int64_t>(segment.n_chunks, room));
          }
          pieces.push_back({workers_.size() - 1, segment});
          done += segment.n_chunks;
          room -= segment.n_chunks;
        }
        Count(pieces.size(), [&](size_t i) -> AttentionSegment& { return pieces[i].second; });
        for (const auto& [worker, segment] : pieces) workers_[worker].push_back(segment);
      }
    }
  }

  // The longest first, each to the worker that has least.
  void DealWide() {
    const int64_t workers = NumWorkers(false);
    std::vector<AttentionSegment> segments;
    const int64_t n_whole = static_cast<int64_t>(wide_.size()) * shape_.n_kv_heads;
    if (n_whole == 0) return;
    const int64_t most_pieces = workers / n_whole;
    for (const Tile& tile : wide_) {
      const int n = static_cast<int>(std::min<int64_t>(most_pieces, tile.n_chunks));
      const bool split = n >= kFewestPieces && TakeSlots(tile);
      for (int head = 0; head < shape_.n_kv_heads; ++head) {
        const size_t before = segments.size();
        const int each = split ? (tile.n_chunks + n - 1) / n : tile.n_chunks;
        for (int done = 0; done < tile.n_chunks; done += each) {
          AttentionSegment segment = tile;
          segment.kv_head = static_cast<int16_t>(head);
          segment.first_chunk = tile.first_chunk + done;
          segment.n_chunks = std::min(each, tile.n_chunks - done);
          segments.push_back(segment);
        }
        Count(segments.size() - before,
              [&](size_t i) -> AttentionSegment& { return segments[before + i]; });
      }
    }
    std::stable_sort(segments.begin(), segments.end(),
                     [&](const auto& a, const auto& b) { return Cost(a) > Cost(b); });
    std::priority_queue<std::pair<int64_t, size_t>, std::vector<std::pair<int64_t, size_t>>,
                        std::greater<>>
        least;
    for (const AttentionSegment& segment : segments) {
      if (static_cast<int64_t>(least.size()) < workers) {
        least.push({Cost(segment), workers_.size()});
        workers_.push_back({segment});
        continue;
      }
      auto [so_far, worker] = least.top();
      least.pop();
      workers_[worker].push_back(segment);
      least.push({so_far + Cost(segment), worker});
    }
  }

  // The segments of one tile and KV head, ascending.
  template <typename Segments>
  void Count(size_t n, Segments&& segment) {
    if (n == 1) return;
    for (size_t i = 0; i < n; ++i) {
      segment(i).n_segments = static_cast<int32_t>(n);
      segment(i).counter = plan_.n_counters;
      segment(i).prefix_end = segment(0).first_chunk + segment(0).n_chunks;
    }
    ++plan_.n_counters;
  }

  void Chain() {
    plan_.segments.resize(workers_.size());
    for (size_t w = 0; w < workers_.size(); ++w) {
      plan_.segments[w] = workers_[w][0];
      size_t at = w;
      for (size_t i = 1; i < workers_[w].size(); ++i) {
        plan_.segments[at].next = static_cast<int32_t>(plan_.segments.size());
        at = plan_.segments.size();
        plan_.segments.push_back(workers_[w][i]);
      }
    }
  }

  // All slots of the tile's rows, or none and false.
  bool TakeSlots(const Tile& tile) {
    int64_t wanted = 0;
    for (int r = tile.first_row; r < tile.first_row + tile.n_rows; ++r) wanted += NumChunks(r);
    if (plan_.n_slots + wanted > limits_.max_slots) return false;
    for (int r = tile.first_row; r < tile.first_row + tile.n_rows; ++r) {
      plan_.row_slots[r] =
          static_cast<int32_t>(plan_.n_slots - FirstChunk(shape_, rows_[r].position));
      plan_.n_slots += NumChunks(r);
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
  std::vector<int32_t> first_new_;  // by sequence
  std::vector<Tile> narrow_, wide_;
  std::vector<Worker> workers_;
  AttentionPlan plan_;
};

}  // namespace

bool AttentionShape::IsServed() const {
  return n_kv_heads > 0 && n_kv_heads <= INT16_MAX && n_heads > 0 && n_heads % n_kv_heads == 0 &&
         group() <= 16 && (head_dim == 64 || head_dim == 128) && window >= 0 && scale > 0;
}

size_t AttentionPlan::PackedBytes() const {
  return segments.size() * sizeof(AttentionSegment) +
         (row_slots.size() + n_counters) * sizeof(int32_t);
}

void AttentionPlan::Pack(void* bytes) const {
  char* to = static_cast<char*>(bytes);
  const auto append = [&to](const auto& values) {
    const size_t n = values.size() * sizeof(values[0]);
    if (n > 0) std::memcpy(to, values.data(), n);
    to += n;
  };
  append(segments);
  append(row_slots);
  std::memset(to, 0, n_counters * sizeof(int32_t));
}

AttentionPlan PlanAttention(const AttentionShape& shape, std::span<const PlanRow> rows,
                            const PlanLimits& limits) {
  return Planner(shape, rows, limits).Run();
}

size_t AttentionWorkspaceBytes(const AttentionShape& shape, int64_t n_slots) {
  return static_cast<size_t>(n_slots) * shape.n_heads * (shape.head_dim + 2) * sizeof(float);
}

}  // namespace gatefold::cuda
