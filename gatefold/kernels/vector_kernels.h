// The kernels, written once over a virtual vector of 16 float32 lanes and compiled once per
// instruction set. No include guard and no namespace of its own: kernels_<isa>.cc defines `Vec` and
// its operations inside an anonymous namespace and then includes this file there, so that no two
// instruction sets share a function.
//
// Every sum below has one order, which depends on the length of the sum alone. That is the row law,
// and it is also why all instruction sets give the same bits:
//   dot product: lane j adds inputs 2j, then 2j + 1, of each 32; the lanes are added by Sum's tree.
//   attention:   scores add over the head dimension in ascending order; the softmax walks KV blocks
//                of 16 absolute positions in ascending order.

// ((lane j + lane j+8) + (j+4)) + (j+2)) + (j+1): Sum(Vec), provided by the instruction set.

// exp(x) to 2 units in the last place. Range reduction x = n ln2 + r, then the Taylor polynomial of
// degree 7 on |r| <= ln2 / 2. Below -87.3 the result is 2^-126, above 88.3 about 2^127.4; NaN of
// NaN.
inline Vec Exp(Vec x) {
  x = Min(Set(88.3f), Max(Set(-87.3f), x));  // in this order, NaN comes through
  const Vec magic = Set(12582912.0f);        // 1.5 * 2^23: adding it rounds to an integer
  const Vec t = Fma(x, Set(1.44269504f), magic);
  const Vec n = Sub(t, magic);
  Vec r = Fma(n, Set(-0.693359375f), x);
  r = Fma(n, Set(2.12194440e-4f), r);
  Vec p = Set(1.0f / 5040);
  p = Fma(p, r, Set(1.0f / 720));
  p = Fma(p, r, Set(1.0f / 120));
  p = Fma(p, r, Set(1.0f / 24));
  p = Fma(p, r, Set(1.0f / 6));
  p = Fma(p, r, Set(0.5f));
  p = Fma(p, r, Set(1.0f));
  p = Fma(p, r, Set(1.0f));
  return Mul(p, PowerOfTwo(t));  // n stands in the low bits of t
}

// A line of 32 weights of one output (see PackedMatrix): what register r of the virtual vector
// takes first, the even inputs, and second, the odd ones.
struct F32Line {
  static constexpr int kBytes = 128;
  static Reg Even(const char* line, int r) {
    return LoadReg(reinterpret_cast<const float*>(line) + r * kRegLanes);
  }
  static Reg Odd(const char* line, int r) { return Even(line + 64, r); }
};
struct Bf16Line {
  static constexpr int kBytes = 64;
  static Reg Even(const char* line, int r) { return LowHalves(line + r * kRegLanes * 4); }
  static Reg Odd(const char* line, int r) { return HighHalves(line + r * kRegLanes * 4); }
};
struct F16Line {
  static constexpr int kBytes = 64;
  static Reg Even(const char* line, int r) { return LoadF16(line + r * kRegLanes * 2); }
  static Reg Odd(const char* line, int r) { return Even(line + 32, r); }
};

constexpr int kPanel = 4;  // outputs

// What a tile of M rows asks memory for ahead of its turn. One row computes so little that the
// hardware's own prefetcher keeps up, and is only slowed by ours. Two need help across its 4 KiB
// pages. With more, computation and memory take turns unless the weights are already on their way:
// far ahead into the second-level cache, where there is room, then into the first.
// One core of a Zen 4, GB/s with (nothing, near, far and near): 1 row 32, 32, 23; 2 rows 26, 29,
// 24; 3 rows 15, 18, 27; 4 rows 10, 13, 24.
template <int M>
inline void PrefetchLines(const char* lines, int bytes) {
  for (int at = 0; at < bytes; at += 64) {
    if (kRegs == 1 && M == 2) Prefetch(lines + 4096 + at);
    if (M > 2 || (kRegs > 1 && M == 2)) {
      PrefetchFar(lines + 16384 + at);
      Prefetch(lines + 2048 + at);
    }
  }
}

// sums[m][p] += the products of M rows with n_lines lines of each of the panel's 4 outputs, for
// register r of the virtual vector. `at`: where in the rows the lines begin, in floats.
template <typename Line, int M, int r, bool kPrefetch>
inline void AddLines(const char* lines, int64_t n_lines, const float* const* x, int64_t at,
                     Reg (&sums)[M][kPanel]) {
  const int64_t end = at + n_lines * 32;
  for (at += r * kRegLanes; at < end; at += 32) {
    if constexpr (kPrefetch) PrefetchLines<M>(lines, kPanel * Line::kBytes);
    Reg v[M];
    for (int m = 0; m < M; ++m) v[m] = LoadReg(x[m] + at);
    for (int p = 0; p < kPanel; ++p) {
      const Reg w = Line::Even(lines + p * Line::kBytes, r);
      for (int m = 0; m < M; ++m) sums[m][p] = FmaReg(v[m], w, sums[m][p]);
    }
    for (int m = 0; m < M; ++m) v[m] = LoadReg(x[m] + at + 16);
    for (int p = 0; p < kPanel; ++p) {
      const Reg w = Line::Odd(lines + p * Line::kBytes, r);
      for (int m = 0; m < M; ++m) sums[m][p] = FmaReg(v[m], w, sums[m][p]);
    }
    lines += kPanel * Line::kBytes;
  }
}

// Where the virtual vector is several registers, a tile of rows sums one of them after the other
// over as many lines as the first-level cache holds: so more of the sums stay in registers.
constexpr int64_t kLinesInCache = 32;

// Apart, or the compiler keeps sums of both registers at once and runs out of registers.
template <typename Line, int M, int r, bool kPrefetch>
__attribute__((noinline)) void AddToParts(const char* lines, int64_t n_lines, const float* const* x,
                                          int64_t at, float (&parts)[M][kPanel][16]) {
  Reg sums[M][kPanel];
  for (int m = 0; m < M; ++m) {
    for (int p = 0; p < kPanel; ++p) sums[m][p] = LoadReg(parts[m][p] + r * kRegLanes);
  }
  AddLines<Line, M, r, kPrefetch>(lines, n_lines, x, at, sums);
  for (int m = 0; m < M; ++m) {
    for (int p = 0; p < kPanel; ++p) StoreReg(parts[m][p] + r * kRegLanes, sums[m][p]);
  }
}

template <typename Line, int M, bool kPrefetch>
void TileDot(const char* panel, int64_t n_lines, const float* const* x, float* const* y) {
  if constexpr (kRegs == 1) {
    Reg sums[M][kPanel];
    for (int m = 0; m < M; ++m) {
      for (int p = 0; p < kPanel; ++p) sums[m][p] = Set(0);
    }
    AddLines<Line, M, 0, kPrefetch>(panel, n_lines, x, 0, sums);
    for (int m = 0; m < M; ++m) Sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3], y[m]);
  } else {
    alignas(64) float parts[M][kPanel][16] = {};
    for (int64_t first = 0; first < n_lines; first += kLinesInCache) {
      const int64_t count = n_lines - first < kLinesInCache ? n_lines - first : kLinesInCache;
      const char* lines = panel + first * kPanel * Line::kBytes;
      AddToParts<Line, M, 0, kPrefetch>(lines, count, x, first * 32, parts);
      AddToParts<Line, M, 1, false>(lines, count, x, first * 32, parts);
    }
    for (int m = 0; m < M; ++m) {
      Sum4(Load(parts[m][0]), Load(parts[m][1]), Load(parts[m][2]), Load(parts[m][3]), y[m]);
    }
  }
}

template <typename Line, bool kPrefetch>
void RowsDot(const char* panel, int64_t n_lines, const float* const* x, int n_rows,
             float* const* y) {
  constexpr int M = kTileRows;  // cases beyond it do not occur, and need no code of their own
  switch (n_rows) {
    case 1:
      return TileDot<Line, 1, kPrefetch>(panel, n_lines, x, y);
    case 2:
      return TileDot < Line, M < 2 ? M : 2, kPrefetch > (panel, n_lines, x, y);
    case 3:
      return TileDot < Line, M < 3 ? M : 3, kPrefetch > (panel, n_lines, x, y);
    case 4:
      return TileDot < Line, M < 4 ? M : 4, kPrefetch > (panel, n_lines, x, y);
    case 5:
      return TileDot < Line, M < 5 ? M : 5, kPrefetch > (panel, n_lines, x, y);
    case 6:
      return TileDot < Line, M < 6 ? M : 6, kPrefetch > (panel, n_lines, x, y);
    default:
      break;
  }
}
static_assert(kTileRows <= 6);

template <typename Line>
void PanelDot(const char* panel, int64_t n_lines, const float* const* x, int n_rows,
              float* const* y, bool from_memory) {
  if (from_memory) {
    RowsDot<Line, true>(panel, n_lines, x, n_rows, y);
  } else {
    RowsDot<Line, false>(panel, n_lines, x, n_rows, y);
  }
}

void SplitEvenOdd(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 32) {
    float line[32] = {};
    const int64_t count = n - i < 32 ? n - i : 32;
    for (int64_t j = 0; j < count; ++j) line[j] = x[i + j];
    for (int j = 0; j < 16; ++j) {
      out[i + j] = line[2 * j];
      out[i + 16 + j] = line[2 * j + 1];
    }
  }
}

// Loads count < 16 floats, the rest zero.
inline Vec LoadPart(const float* x, int64_t count) {
  float part[16] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = x[i];
  return Load(part);
}
inline void StorePart(float* x, Vec v, int64_t count) {
  float part[16];
  Store(part, v);
  for (int64_t i = 0; i < count; ++i) x[i] = part[i];
}

inline Vec SiluMulVec(Vec gate, Vec up) {
  const Vec sigmoid = Div(Set(1.0f), Add(Set(1.0f), Exp(Sub(Set(0.0f), gate))));
  return Mul(Mul(gate, sigmoid), up);
}

void SiluMul(const float* gate, const float* up, float* h, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) Store(h + i, SiluMulVec(Load(gate + i), Load(up + i)));
  if (i < n)
    StorePart(h + i, SiluMulVec(LoadPart(gate + i, n - i), LoadPart(up + i, n - i)), n - i);
}

void RmsNorm(const float* x, const float* weight, float eps, float* y, int64_t d) {
  Vec squares = Set(0);
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) squares = Fma(Load(x + i), Load(x + i), squares);
  if (i < d) squares = Fma(LoadPart(x + i, d - i), LoadPart(x + i, d - i), squares);
  const float scale = 1.0f / __builtin_sqrtf(Sum(squares) / static_cast<float>(d) + eps);
  for (i = 0; i + 16 <= d; i += 16) {
    Store(y + i, Mul(Mul(Load(x + i), Set(scale)), Load(weight + i)));
  }
  for (; i < d; ++i) y[i] = x[i] * scale * weight[i];
}

void Fold(const float* answers, const float* weights, int k, float* x, int64_t d) {
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) {
    Vec sum = Set(0);
    for (int j = 0; j < k; ++j) sum = Fma(Load(answers + j * d + i), Set(weights[j]), sum);
    Store(x + i, Add(Load(x + i), sum));
  }
  if (i == d) return;
  Vec sum = Set(0);
  for (int j = 0; j < k; ++j) sum = Fma(LoadPart(answers + j * d + i, d - i), Set(weights[j]), sum);
  StorePart(x + i, Add(LoadPart(x + i, d - i), sum), d - i);
}

void Exp16(const float* x, float* y) { Store(y, Exp(Load(x))); }

// ---- attention. Keys of a block: [head_dim, 16 positions]; values: [16 positions, padded], where
// padded is head_dim rounded up to 16.

constexpr int kBlock = 16;

template <int Q>
inline void Scores(const float* const* q, const float* keys, int head_dim, Vec* scores) {
  Vec sums[Q];
  for (int i = 0; i < Q; ++i) sums[i] = Set(0);
  for (int d = 0; d < head_dim; ++d) {
    const Vec k = Load(keys + d * kBlock);
    for (int i = 0; i < Q; ++i) sums[i] = Fma(Set(q[i][d]), k, sums[i]);
  }
  for (int i = 0; i < Q; ++i) scores[i] = sums[i];
}

// One query's softmax so far: the largest score, the sum of weights, the weighted sum of values.
struct Running {
  float max;
  float sum;
};

inline float ExpOne(float x) {
  float lanes[16];
  Store(lanes, Exp(Set(x)));
  return lanes[0];
}

// Takes a block's scores in: leaves its weights in `weights`, and returns what brings everything
// added before to the new maximum.
inline float Advance(Vec scores, int first, int end, Running* running, float* weights) {
  const Vec masked = Keep(scores, first, end, -3.0e38f);
  const float block_max = MaxLane(masked);
  const float max = block_max > running->max ? block_max : running->max;
  const Vec w = Keep(Exp(Sub(masked, Set(max))), first, end, 0.0f);
  const float rescale = ExpOne(running->max - max);
  running->sum = __builtin_fmaf(running->sum, rescale, Sum(w));
  running->max = max;
  Store(weights, w);
  return rescale;
}

template <int N>
inline void AddValues(const float* values, int64_t padded, const float* weights, int first, int end,
                      float rescale, float* out) {
  Vec sums[N];
  for (int n = 0; n < N; ++n) sums[n] = Mul(Load(out + n * 16), Set(rescale));
  for (int p = first; p < end; ++p) {
    const Vec w = Set(weights[p]);
    for (int n = 0; n < N; ++n) sums[n] = Fma(w, Load(values + p * padded + n * 16), sums[n]);
  }
  for (int n = 0; n < N; ++n) Store(out + n * 16, sums[n]);
}

inline void AddBlock(const float* values, int64_t padded, const float* weights, int first, int end,
                     float rescale, float* out) {
  int64_t at = 0;
  for (; at + 64 <= padded; at += 64) {
    AddValues<4>(values + at, padded, weights, first, end, rescale, out + at);
  }
  for (; at < padded; at += 16) {
    AddValues<1>(values + at, padded, weights, first, end, rescale, out + at);
  }
}

void AttentionTile(const KernelTable::AttentionTile& tile) {
  const int n = tile.n_queries;
  const int64_t padded = (tile.head_dim + 15) / 16 * 16;
  float* sums = tile.scratch;          // [n, padded]
  float* weights = sums + n * padded;  // [16]
  Running running[KernelTable::kMaxQueries];
  int first_block = 1 << 30, last_block = 0;
  int starts[KernelTable::kMaxQueries];
  for (int i = 0; i < n; ++i) {
    running[i] = {-3.0e38f, 0.0f};
    for (int64_t d = 0; d < padded; ++d) sums[i * padded + d] = 0;
    const int start = tile.window > 0 ? tile.positions[i] - tile.window + 1 : 0;
    starts[i] = start > 0 ? start : 0;
    if (starts[i] / kBlock < first_block) first_block = starts[i] / kBlock;
    if (tile.positions[i] / kBlock > last_block) last_block = tile.positions[i] / kBlock;
  }
  for (int block = first_block; block <= last_block; ++block) {
    const int64_t at = tile.block_table[block] * tile.block_stride;
    const float* keys = tile.keys + at;
    const float* values = tile.values + at;
    Vec scores[KernelTable::kMaxQueries];
    int i = 0;
    for (; i + 8 <= n; i += 8) Scores<8>(tile.q + i, keys, tile.head_dim, scores + i);
    for (; i + 4 <= n; i += 4) Scores<4>(tile.q + i, keys, tile.head_dim, scores + i);
    for (; i + 2 <= n; i += 2) Scores<2>(tile.q + i, keys, tile.head_dim, scores + i);
    for (; i < n; ++i) Scores<1>(tile.q + i, keys, tile.head_dim, scores + i);
    for (i = 0; i < n; ++i) {
      const int begin = block * kBlock;
      const int first = starts[i] > begin ? starts[i] - begin : 0;
      const int end =
          tile.positions[i] - begin + 1 < kBlock ? tile.positions[i] - begin + 1 : kBlock;
      if (first >= kBlock || end <= 0) continue;
      const float rescale =
          Advance(Mul(scores[i], Set(tile.scale)), first, end, &running[i], weights);
      AddBlock(values, padded, weights, first, end, rescale, sums + i * padded);
    }
  }
  for (int i = 0; i < n; ++i) {
    const float inverse = 1.0f / running[i].sum;
    for (int d = 0; d < tile.head_dim; ++d) tile.out[i][d] = sums[i * padded + d] * inverse;
  }
}

constexpr KernelTable kTable = {
    kIsaName,
    PanelDot<F32Line>,
    PanelDot<Bf16Line>,
    PanelDot<F16Line>,
    kTileRows,
    SplitEvenOdd,
    SiluMul,
    RmsNorm,
    Fold,
    Exp16,
    AttentionTile,
};
