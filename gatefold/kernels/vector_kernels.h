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

constexpr int kPanel = 4;  // outputs

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

// The lines of a panel's 4 outputs for 32 inputs, and by Next() those for the following 32. A
// quantised weight is its q times its scale, which float32 holds exactly.
template <typename Line>
struct PlainLines {
  static constexpr int kBytes = kPanel * Line::kBytes;
  static constexpr bool kBusy = false;
  const char* at;
  Reg Even(int p, int r) const { return Line::Even(at + p * Line::kBytes, r); }
  Reg Odd(int p, int r) const { return Line::Odd(at + p * Line::kBytes, r); }
  void Next() { at += kBytes; }
};
struct Int8Lines {
  static constexpr int kBytes = kPanel * 32;
  static constexpr bool kBusy = true;
  const char* at;
  const float* scales;
  Reg Even(int p, int r) const { return LoadInt8(at + p * 32 + r * kRegLanes, scales[p]); }
  Reg Odd(int p, int r) const { return LoadInt8(at + p * 32 + 16 + r * kRegLanes, scales[p]); }
  void Next() {
    at += kBytes;
    scales += kPanel;
  }
};
struct Int4Lines {
  static constexpr int kBytes = kPanel * 16;
  static constexpr bool kBusy = true;
  const char* at;
  const float* scales;
  Reg Even(int p, int r) const { return LoadInt4(at + r * kRegLanes * 4, 2 * p, scales[p]); }
  Reg Odd(int p, int r) const { return LoadInt4(at + r * kRegLanes * 4, 2 * p + 1, scales[p]); }
  void Next() {
    at += kBytes;
    scales += kPanel;
  }
};

// Rows of one call of a product with quantised weights, and how far ahead of its turn a line is
// asked for, in bytes, where all of them wait for it: it comes while the lines before it are
// multiplied.
constexpr int kWideRows = 24;
constexpr int kWideAhead = 4096;

// Lines that are summed in one go. Where the virtual vector is several registers, a tile of rows
// sums one of them after the other over as many lines as the first-level cache holds: so more of
// the sums stay in registers.
constexpr int64_t kLinesInCache = 32;

// A panel as its lines, run by run.
template <typename Line>
struct PlainPanel {
  using Lines = PlainLines<Line>;
  PlainPanel(const char* panel, int64_t n) : lines(panel), n_lines(n) {}
  int64_t MostLines() const { return kRegs == 1 ? n_lines : kLinesInCache; }
  Lines Run(int64_t first, int64_t /*count*/) { return {lines + first * Lines::kBytes}; }

  const char* const lines;
  const int64_t n_lines;
};
template <typename QuantisedLines>
struct QuantisedPanel {
  using Lines = QuantisedLines;
  QuantisedPanel(const char* panel, int64_t n_lines)
      : scales(panel), lines(panel + (n_lines * kPanel * 2 + 63) / 64 * 64) {}
  int64_t MostLines() const { return kLinesInCache; }
  // Valid until the next call.
  Lines Run(int64_t first, int64_t count) {
    const char* from = scales + first * kPanel * 2;
    for (int64_t i = 0; i < count * kPanel; i += kRegLanes) {
      StoreReg(wide + i, LoadBf16(from + i * 2));
    }
    for (int i = 0; i < kLinesInCache * kPanel * 2; i += 64) {
      Prefetch(from + kLinesInCache * kPanel * 2 + i);
    }
    return {lines + first * Lines::kBytes, wide};
  }

  const char* const scales;
  const char* const lines;
  alignas(64) float wide[kLinesInCache * kPanel];  // the scales of a run
};

// What a tile of M rows asks memory for ahead of its turn. One row computes so little that the
// hardware's own prefetcher keeps up, and is only slowed by ours. Two need help across its 4 KiB
// pages. With more, computation and memory take turns unless the weights are already on their way:
// far ahead into the second-level cache, where there is room, then into the first.
// Quantised lines of one row compute more, too (kBusy): an expert's, on two cores of a Zen 5 that
// read 48 to 79 GB/s, took 568 us in int8 and 383 in int4 without, 360 and 206 with.
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
template <int M, int r, bool kPrefetch, typename Lines>
inline void AddLines(Lines lines, int64_t n_lines, const float* const* x, int64_t at,
                     Reg (&sums)[M][kPanel]) {
  const int64_t end = at + n_lines * 32;
  for (at += r * kRegLanes; at < end; at += 32) {
    if constexpr (kPrefetch) PrefetchLines<Lines::kBusy ? 3 : M>(lines.at, Lines::kBytes);
    Reg v[M];
    for (int m = 0; m < M; ++m) v[m] = LoadReg(x[m] + at);
    for (int p = 0; p < kPanel; ++p) {
      const Reg w = lines.Even(p, r);
      for (int m = 0; m < M; ++m) sums[m][p] = FmaReg(v[m], w, sums[m][p]);
    }
    for (int m = 0; m < M; ++m) v[m] = LoadReg(x[m] + at + 16);
    for (int p = 0; p < kPanel; ++p) {
      const Reg w = lines.Odd(p, r);
      for (int m = 0; m < M; ++m) sums[m][p] = FmaReg(v[m], w, sums[m][p]);
    }
    lines.Next();
  }
}

using Parts = float[kPanel][16];  // the sums of one row, lane by lane

// Apart, or the compiler keeps sums of both registers at once and runs out of registers.
template <int M, int r, bool kPrefetch, typename Lines>
__attribute__((noinline)) void AddToParts(Lines lines, int64_t n_lines, const float* const* x,
                                          int64_t at, Parts* parts) {
  Reg sums[M][kPanel];
  for (int m = 0; m < M; ++m) {
    for (int p = 0; p < kPanel; ++p) sums[m][p] = LoadReg(parts[m][p] + r * kRegLanes);
  }
  AddLines<M, r, kPrefetch>(lines, n_lines, x, at, sums);
  for (int m = 0; m < M; ++m) {
    for (int p = 0; p < kPanel; ++p) StoreReg(parts[m][p] + r * kRegLanes, sums[m][p]);
  }
}

inline void SumParts(const Parts& parts, float* y) {
  Sum4(Load(parts[0]), Load(parts[1]), Load(parts[2]), Load(parts[3]), y);
}

template <typename Panel, int M, bool kPrefetch>
void TileDot(const char* from, int64_t n_lines, const float* const* x, float* const* y) {
  Panel panel(from, n_lines);
  const int64_t most = panel.MostLines();
  if constexpr (kRegs == 1) {
    Reg sums[M][kPanel];
    for (int m = 0; m < M; ++m) {
      for (int p = 0; p < kPanel; ++p) sums[m][p] = Set(0);
    }
    for (int64_t first = 0; first < n_lines; first += most) {
      const int64_t count = n_lines - first < most ? n_lines - first : most;
      AddLines<M, 0, kPrefetch>(panel.Run(first, count), count, x, first * 32, sums);
    }
    for (int m = 0; m < M; ++m) Sum4(sums[m][0], sums[m][1], sums[m][2], sums[m][3], y[m]);
  } else {
    alignas(64) Parts parts[M] = {};
    for (int64_t first = 0; first < n_lines; first += most) {
      const int64_t count = n_lines - first < most ? n_lines - first : most;
      const typename Panel::Lines lines = panel.Run(first, count);
      AddToParts<M, 0, kPrefetch>(lines, count, x, first * 32, parts);
      AddToParts<M, 1, false>(lines, count, x, first * 32, parts);
    }
    for (int m = 0; m < M; ++m) SumParts(parts[m], y[m]);
  }
}

// Calls tile<M>() for M = n, which is 1 to kTileRows: cases beyond it need no code of their own.
template <typename Tile>
inline void WithTileRows(int n, Tile tile) {
  constexpr int M = kTileRows;
  switch (n) {
    case 1:
      return tile.template operator()<1>();
    case 2:
      return tile.template operator()<(M < 2 ? M : 2)>();
    case 3:
      return tile.template operator()<(M < 3 ? M : 3)>();
    case 4:
      return tile.template operator()<(M < 4 ? M : 4)>();
    case 5:
      return tile.template operator()<(M < 5 ? M : 5)>();
    case 6:
      return tile.template operator()<(M < 6 ? M : 6)>();
    default:
      break;
  }
}
static_assert(kTileRows <= 6 && kConvertRows <= kTileRows);

template <typename Panel>
void PanelDot(const char* panel, int64_t n_lines, const float* const* x, int n_rows,
              float* const* y, bool from_memory) {
  WithTileRows(n_rows, [&]<int M>() {
    if (from_memory) {
      TileDot<Panel, M, true>(panel, n_lines, x, y);
    } else {
      TileDot<Panel, M, false>(panel, n_lines, x, y);
    }
  });
}

// A run of quantised lines becomes float32 once, in the first-level cache, for all rows.
template <typename Panel>
void WideDot(const char* from, int64_t n_lines, const float* const* x, int n_rows,
             float* const* y) {
  using Lines = typename Panel::Lines;
  alignas(64) float floats[kLinesInCache * kPanel * 32];
  alignas(64) Parts parts[kWideRows];
  for (int m = 0; m < n_rows; ++m) {
    for (int p = 0; p < kPanel; ++p) Store(parts[m][p], Set(0));
  }
  Panel panel(from, n_lines);
  for (int64_t first = 0; first < n_lines; first += kLinesInCache) {
    const int64_t count = n_lines - first < kLinesInCache ? n_lines - first : kLinesInCache;
    Lines lines = panel.Run(first, count);
    for (float* to = floats; to < floats + count * kPanel * 32;) {
      for (int at = 0; at < Lines::kBytes; at += 64) Prefetch(lines.at + kWideAhead + at);
      for (int p = 0; p < kPanel; ++p, to += 32) {
        for (int r = 0; r < kRegs; ++r) {
          StoreReg(to + r * kRegLanes, lines.Even(p, r));
          StoreReg(to + 16 + r * kRegLanes, lines.Odd(p, r));
        }
      }
      lines.Next();
    }
    const PlainLines<F32Line> wide = {reinterpret_cast<const char*>(floats)};
    for (int m = 0; m < n_rows; m += kTileRows) {
      WithTileRows(n_rows - m < kTileRows ? n_rows - m : kTileRows, [&]<int M>() {
        AddToParts<M, 0, false>(wide, count, x + m, first * 32, parts + m);
        if constexpr (kRegs > 1) AddToParts<M, 1, false>(wide, count, x + m, first * 32, parts + m);
      });
    }
  }
  for (int m = 0; m < n_rows; ++m) SumParts(parts[m], y[m]);
}

// Up to kConvertedRows, kConvertRows at a time: converted in registers, for each of those tiles
// again.
template <typename Lines>
void QuantisedDot(const char* panel, int64_t n_lines, const float* const* x, int n_rows,
                  float* const* y, bool from_memory) {
  using Panel = QuantisedPanel<Lines>;
  if constexpr (kConvertedRows < kWideRows) {
    if (n_rows > kConvertedRows) return WideDot<Panel>(panel, n_lines, x, n_rows, y);
  }
  for (; n_rows > kConvertRows; n_rows -= kConvertRows, x += kConvertRows, y += kConvertRows) {
    PanelDot<Panel>(panel, n_lines, x, kConvertRows, y, from_memory);
    from_memory = false;
  }
  PanelDot<Panel>(panel, n_lines, x, n_rows, y, from_memory);
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

// A float's bits to those of the nearest bfloat16: FloatToBF16 of dtype.h, which others share. The
// loops are plain, for the compiler to make vectors of.
inline uint32_t NearestBf16(uint32_t bits) {
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
  return (bits & 0x7fffffffu) > 0x7f800000u ? quiet : nearest;
}
inline uint32_t BitsOf(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float FloatOf(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
void ToBf16(const float* __restrict x, int64_t n, uint16_t* __restrict to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint16_t>(NearestBf16(BitsOf(x[i])));
}
void FromBf16(const char* __restrict halves, int64_t n, float* __restrict to) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, halves + 2 * i, sizeof half);
    to[i] = FloatOf(static_cast<uint32_t>(half) << 16);
  }
}
void RoundToBf16(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = FloatOf(NearestBf16(BitsOf(x[i])) << 16);
}

// ---- attention. Keys of a block: [head_dim, 16 positions]; values: [16 positions, padded], where
// padded is head_dim rounded up to 16.

constexpr int kBlock = 16;
constexpr int kMaxQueries = KernelTable::kMaxQueries;
constexpr float kLeastScore = -3.0e38f;

// Blocks of keys, and the blocks to ask memory for meanwhile, line by line: into the second-level
// cache, because the first can await too few lines at once (one core of a Zen 4, positions not in
// any cache: 19 GB/s, against 10 into the first or with the hardware's prefetcher alone).
template <int B>
struct KeyBlocks {
  const float* now[B];
  const float* next[B];
};

// Scores of Q queries with B blocks of keys. A step takes one float of each query and one line of
// each block, so more of both keep more sums busy per load.
template <int Q, int B>
__attribute__((noinline)) void ScoreBlocks(const float* const* q, const KeyBlocks<B>& keys,
                                           int head_dim, float (*scores)[kMaxQueries][kBlock]) {
  Vec sums[Q][B];
  for (int i = 0; i < Q; ++i) {
    for (int b = 0; b < B; ++b) sums[i][b] = Set(0);
  }
  for (int d = 0; d < head_dim; ++d) {
    Vec k[B];
    for (int b = 0; b < B; ++b) {
      k[b] = Load(keys.now[b] + d * kBlock);
      PrefetchFar(reinterpret_cast<const char*>(keys.next[b] + d * kBlock));
    }
    for (int i = 0; i < Q; ++i) {
      const Vec one = Set(q[i][d]);
      for (int b = 0; b < B; ++b) sums[i][b] = Fma(one, k[b], sums[i][b]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int b = 0; b < B; ++b) Store(scores[b][i], sums[i][b]);
  }
}

// Of n queries: Q at a time, the rest by halves of Q. scores: [B], the first query's.
template <int Q, int B>
inline void Scores(const float* const* q, int n, const KeyBlocks<B>& keys, int head_dim,
                   float (*scores)[kMaxQueries][kBlock]) {
  const auto of_query = [scores](int i) {
    return reinterpret_cast<float(*)[kMaxQueries][kBlock]>(&scores[0][i]);
  };
  int i = 0;
  for (; i + Q <= n; i += Q) ScoreBlocks<Q, B>(q + i, keys, head_dim, of_query(i));
  if constexpr (Q > 1) {
    if (i < n) Scores<Q / 2, B>(q + i, n - i, keys, head_dim, of_query(i));
  }
}

// The softmax so far of a tile's queries, one per lane: the largest score, the sum of weights.
struct Running {
  float max[kBlock];
  float sum[kBlock];
};

// Positions [first, end) of a block that a query sees; none if end <= first.
struct Seen {
  int first, end;
};

// Takes a block's scores in: leaves its weights in their place, and in `rescale` what brings what
// each query added before to its new maximum. A query that sees nothing of the block keeps its
// state: its weights are zero and its rescale one.
inline void Advance(float (*scores)[kBlock], int n, float scale, const Seen* seen, Running* running,
                    float* rescale) {
  Vec w[kMaxQueries];
  float most[kBlock] = {}, sums[kBlock] = {};
  for (int i = 0; i < n; ++i) {
    w[i] = Keep(Mul(Load(scores[i]), Set(scale)), seen[i].first, seen[i].end, kLeastScore);
  }
  for (int i = n; i < kMaxQueries; ++i) w[i] = Set(0);
  for (int i = 0; i < n; i += 4) Max4(w[i], w[i + 1], w[i + 2], w[i + 3], most + i);
  const Vec before = Load(running->max);
  const Vec max = Max(Load(most), before);
  Store(running->max, max);
  const Vec scaling = Exp(Sub(before, max));
  Store(rescale, scaling);
  for (int i = 0; i < n; ++i) {
    w[i] = Keep(Exp(Sub(w[i], Set(running->max[i]))), seen[i].first, seen[i].end, 0.0f);
    Store(scores[i], w[i]);
  }
  for (int i = 0; i < n; i += 4) Sum4(w[i], w[i + 1], w[i + 2], w[i + 3], sums + i);
  Store(running->sum, Fma(Load(running->sum), scaling, Load(sums)));
}
static_assert(kMaxQueries % 4 == 0);

// sums = rescale * sums + weights * values, for Q queries that see the same positions and N vectors
// of the head dimension. The sums of query i begin i * padded in. Asks memory for `next` meanwhile.
template <int Q, int N>
__attribute__((noinline)) void AddValues(const float* values, const float* next, int64_t padded,
                                         const float (*weights)[kBlock], Seen seen,
                                         const float* rescale, float* sums) {
  Vec total[Q][N];
  for (int i = 0; i < Q; ++i) {
    for (int n = 0; n < N; ++n) {
      total[i][n] = Mul(Load(sums + i * padded + n * 16), Set(rescale[i]));
    }
  }
  for (int p = seen.first; p < seen.end; ++p) {
    Vec v[N];
    for (int n = 0; n < N; ++n) {
      v[n] = Load(values + p * padded + n * 16);
      PrefetchFar(reinterpret_cast<const char*>(next + p * padded + n * 16));
    }
    for (int i = 0; i < Q; ++i) {
      const Vec w = Set(weights[i][p]);
      for (int n = 0; n < N; ++n) total[i][n] = Fma(w, v[n], total[i][n]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int n = 0; n < N; ++n) Store(sums + i * padded + n * 16, total[i][n]);
  }
}

// The same for n queries and the whole head dimension: Q queries at a time, the rest by halves.
template <int Q>
inline void AddBlock(const float* values, const float* next, int64_t padded,
                     const float (*weights)[kBlock], Seen seen, int n, const float* rescale,
                     float* sums) {
  int i = 0;
  for (; i + Q <= n; i += Q) {
    float* to = sums + i * padded;
    int64_t at = 0;
    for (; at + kValueVecs * 16 <= padded; at += kValueVecs * 16) {
      AddValues<Q, kValueVecs>(values + at, next + at, padded, weights + i, seen, rescale + i,
                               to + at);
    }
    for (; at < padded; at += 16) {
      AddValues<Q, 1>(values + at, next + at, padded, weights + i, seen, rescale + i, to + at);
    }
  }
  if constexpr (Q > 1) {
    if (i < n) {
      AddBlock<Q / 2>(values, next, padded, weights + i, seen, n - i, rescale + i,
                      sums + i * padded);
    }
  }
}

// The same for all queries of a tile: neighbours that see the same positions together.
inline void AddBlockForAll(const float* values, const float* next, int64_t padded,
                           const float (*weights)[kBlock], const Seen* seen, int n,
                           const float* rescale, float* sums) {
  for (int i = 0; i < n;) {
    int end = i + 1;
    while (end < n && seen[end].first == seen[i].first && seen[end].end == seen[i].end) ++end;
    if (seen[i].end > seen[i].first) {
      AddBlock<kValueQueries>(values, next, padded, weights + i, seen[i], end - i, rescale + i,
                              sums + i * padded);
    }
    i = end;
  }
}

inline Seen SeenOfBlock(int start, int position, int block) {
  const int begin = block * kBlock;
  const int first = start > begin ? start - begin : 0;
  const int end = position - begin + 1 < kBlock ? position - begin + 1 : kBlock;
  if (first >= end) return {0, 0};
  return {first, end};
}

void AttentionTile(const KernelTable::AttentionTile& tile) {
  const int n = tile.n_queries;
  const int64_t padded = (tile.head_dim + 15) / 16 * 16;
  float* sums = tile.scratch;  // [n, padded]
  for (int64_t i = 0; i < n * padded; ++i) sums[i] = 0;
  Running running;
  for (int i = 0; i < kBlock; ++i) {
    running.max[i] = kLeastScore;
    running.sum[i] = 0;
  }
  int starts[kMaxQueries];
  int first_block = 1 << 30, last_block = 0;
  for (int i = 0; i < n; ++i) {
    const int start = tile.window > 0 ? tile.positions[i] - tile.window + 1 : 0;
    starts[i] = start > 0 ? start : 0;
    if (starts[i] / kBlock < first_block) first_block = starts[i] / kBlock;
    if (tile.positions[i] / kBlock > last_block) last_block = tile.positions[i] / kBlock;
  }
  const auto block_at = [&](const float* base, int block) {
    block = block < last_block ? block : last_block;
    return base + tile.block_table[block] * tile.block_stride;
  };
  alignas(64) float scores[kScoreBlocks][kMaxQueries][kBlock];
  for (int block = first_block; block <= last_block; ++block) {
    const int turn = (block - first_block) % kScoreBlocks;
    if (turn == 0) {
      KeyBlocks<kScoreBlocks> keys;
      for (int b = 0; b < kScoreBlocks; ++b) {
        keys.now[b] = block_at(tile.keys, block + b);
        keys.next[b] = block_at(tile.keys, block + b + kScoreBlocks);
      }
      Scores<kScoreQueries>(tile.q, n, keys, tile.head_dim, scores);
    }
    Seen seen[kMaxQueries];
    for (int i = 0; i < n; ++i) seen[i] = SeenOfBlock(starts[i], tile.positions[i], block);
    float rescale[kBlock];
    Advance(scores[turn], n, tile.scale, seen, &running, rescale);
    AddBlockForAll(block_at(tile.values, block), block_at(tile.values, block + 1), padded,
                   scores[turn], seen, n, rescale, sums);
  }
  for (int i = 0; i < n; ++i) {
    const float inverse = 1.0f / running.sum[i];
    for (int d = 0; d < tile.head_dim; ++d) tile.out[i][d] = sums[i * padded + d] * inverse;
  }
}

constexpr KernelTable kTable = {
    kIsaName,
    PanelDot<PlainPanel<F32Line>>,
    PanelDot<PlainPanel<Bf16Line>>,
    PanelDot<PlainPanel<F16Line>>,
    QuantisedDot<Int8Lines>,
    QuantisedDot<Int4Lines>,
    kTileRows,
    kWideRows,
    SplitEvenOdd,
    SiluMul,
    RmsNorm,
    Fold,
    Exp16,
    ToBf16,
    FromBf16,
    RoundToBf16,
    AttentionTile,
};
