#pragma once

// Hopper's warpgroup matrix instruction in the widths that are used (PTX ISA, wgmma.mma_async).
// For sm_90a only.
//
// Wgmma(sums, a, b): sums[64 outputs, n rows] += a[64 outputs, 16 inputs] b[n rows, 16 inputs]; n / 2 sums per
// thread. a: a descriptor, or registers (outputs lane / 4 and 8 more of the warp's 16, inputs
// 2 (lane % 4) and one more, then the same of inputs 8 on), which nobody may write before the wait
// that ends the product. The bits are the same for both.

#include <cstdint>

namespace gatefold::cuda::sm90 {

// The first 4, 8, 16, 24 ... sums as the text names them, and as operands.
#define GATEFOLD_NAMES_4 "%0,%1,%2,%3"
#define GATEFOLD_SUMS_4 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define GATEFOLD_EIGHT(i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),   \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define GATEFOLD_NAMES_8 GATEFOLD_NAMES_4 ",%4,%5,%6,%7"
#define GATEFOLD_SUMS_8 GATEFOLD_EIGHT(0)
#define GATEFOLD_NAMES_16 GATEFOLD_NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define GATEFOLD_SUMS_16 GATEFOLD_SUMS_8, GATEFOLD_EIGHT(8)
#define GATEFOLD_NAMES_24 GATEFOLD_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define GATEFOLD_SUMS_24 GATEFOLD_SUMS_16, GATEFOLD_EIGHT(16)
#define GATEFOLD_NAMES_32 GATEFOLD_NAMES_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define GATEFOLD_SUMS_32 GATEFOLD_SUMS_24, GATEFOLD_EIGHT(24)
#define GATEFOLD_NAMES_40 GATEFOLD_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define GATEFOLD_SUMS_40 GATEFOLD_SUMS_32, GATEFOLD_EIGHT(32)
#define GATEFOLD_NAMES_48 GATEFOLD_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define GATEFOLD_SUMS_48 GATEFOLD_SUMS_40, GATEFOLD_EIGHT(40)
#define GATEFOLD_NAMES_56 GATEFOLD_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define GATEFOLD_SUMS_56 GATEFOLD_SUMS_48, GATEFOLD_EIGHT(48)
#define GATEFOLD_NAMES_64 GATEFOLD_NAMES_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define GATEFOLD_SUMS_64 GATEFOLD_SUMS_56, GATEFOLD_EIGHT(56)
#define GATEFOLD_NAMES_72 GATEFOLD_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define GATEFOLD_SUMS_72 GATEFOLD_SUMS_64, GATEFOLD_EIGHT(64)
#define GATEFOLD_NAMES_80 GATEFOLD_NAMES_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define GATEFOLD_SUMS_80 GATEFOLD_SUMS_72, GATEFOLD_EIGHT(72)
#define GATEFOLD_NAMES_88 GATEFOLD_NAMES_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define GATEFOLD_SUMS_88 GATEFOLD_SUMS_80, GATEFOLD_EIGHT(80)
#define GATEFOLD_NAMES_96 GATEFOLD_NAMES_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define GATEFOLD_SUMS_96 GATEFOLD_SUMS_88, GATEFOLD_EIGHT(88)
#define GATEFOLD_NAMES_104 GATEFOLD_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define GATEFOLD_SUMS_104 GATEFOLD_SUMS_96, GATEFOLD_EIGHT(96)
#define GATEFOLD_NAMES_112 GATEFOLD_NAMES_104 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define GATEFOLD_SUMS_112 GATEFOLD_SUMS_104, GATEFOLD_EIGHT(104)
#define GATEFOLD_NAMES_120 GATEFOLD_NAMES_112 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define GATEFOLD_SUMS_120 GATEFOLD_SUMS_112, GATEFOLD_EIGHT(112)
#define GATEFOLD_NAMES_128 GATEFOLD_NAMES_120 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define GATEFOLD_SUMS_128 GATEFOLD_SUMS_120, GATEFOLD_EIGHT(120)

// By rows, sums, and what the text calls a (a descriptor, or four registers) and b behind the sums.
#define GATEFOLD_WGMMA(n, n_sums, a_descriptor, b_after_it, a_registers, b_after_them)              \
  __device__ inline void Wgmma(float (&d)[n_sums], uint64_t a, uint64_t b) {                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" GATEFOLD_NAMES_##n_sums \
                 "}, " a_descriptor ", " b_after_it ", p, 1, 1, 0, 0;\n}\n"                         \
                 : GATEFOLD_SUMS_##n_sums                                                           \
                 : "l"(a), "l"(b));                                                                 \
  }                                                                                                 \
  __device__ inline void Wgmma(float (&d)[n_sums], const uint32_t (&a)[4], uint64_t b) {            \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                         \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" GATEFOLD_NAMES_##n_sums \
                 "}, {" a_registers "}, " b_after_them ", p, 1, 1, 0;\n}\n"                         \
                 : GATEFOLD_SUMS_##n_sums                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                             \
  }

GATEFOLD_WGMMA(8, 4, "%4", "%5", "%4,%5,%6,%7", "%8")
GATEFOLD_WGMMA(16, 8, "%8", "%9", "%8,%9,%10,%11", "%12")
GATEFOLD_WGMMA(32, 16, "%16", "%17", "%16,%17,%18,%19", "%20")
GATEFOLD_WGMMA(48, 24, "%24", "%25", "%24,%25,%26,%27", "%28")
GATEFOLD_WGMMA(64, 32, "%32", "%33", "%32,%33,%34,%35", "%36")
GATEFOLD_WGMMA(80, 40, "%40", "%41", "%40,%41,%42,%43", "%44")
GATEFOLD_WGMMA(96, 48, "%48", "%49", "%48,%49,%50,%51", "%52")
GATEFOLD_WGMMA(112, 56, "%56", "%57", "%56,%57,%58,%59", "%60")
GATEFOLD_WGMMA(128, 64, "%64", "%65", "%64,%65,%66,%67", "%68")
GATEFOLD_WGMMA(144, 72, "%72", "%73", "%72,%73,%74,%75", "%76")
GATEFOLD_WGMMA(160, 80, "%80", "%81", "%80,%81,%82,%83", "%84")
GATEFOLD_WGMMA(176, 88, "%88", "%89", "%88,%89,%90,%91", "%92")
GATEFOLD_WGMMA(192, 96, "%96", "%97", "%96,%97,%98,%99", "%100")
GATEFOLD_WGMMA(208, 104, "%104", "%105", "%104,%105,%106,%107", "%108")
GATEFOLD_WGMMA(224, 112, "%112", "%113", "%112,%113,%114,%115", "%116")
GATEFOLD_WGMMA(240, 120, "%120", "%121", "%120,%121,%122,%123", "%124")
GATEFOLD_WGMMA(256, 128, "%128", "%129", "%128,%129,%130,%131", "%132")

#undef GATEFOLD_WGMMA

}  // namespace gatefold::cuda::sm90
