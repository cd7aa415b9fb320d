#!/usr/bin/env bash
# What only a machine with a CUDA device can check, one stage after the other:
#   tests/gpu/check.sh [--programs FOLDER] [--out FOLDER] [--limit SECONDS] [STAGE...]
#
#   kernels     gpu_test: numbers against float64, bits alone and in batches
#   services    experts, attention and a router's rows on the device: golden logits, the row law through gRPC
#   memcheck    compute-sanitizer over what reads and writes at ragged edges
#   racecheck   compute-sanitizer over what shares memory between warps
#
# All of them by default. FOLDER: build/release, or what tests/gpu/bundle.sh made of it elsewhere. Each
# stage may take SECONDS (default 900) and leaves a log in --out (default build/gpu-checks). The exit
# code is 1 if a stage failed. Without a device, or without compute-sanitizer, a stage is skipped and
# says so.
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=build/release out=build/gpu-checks limit=900
stages=()
usage() { echo "check.sh: $*; see --help" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --programs | --out | --limit)
      [ -n "${2-}" ] || usage "$1 needs a value"
      ;;&
    --programs) programs=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --limit) limit=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    kernels | services | memcheck | racecheck) stages+=("$1"); shift ;;
    *) usage "\"$1\" is neither a flag nor a stage" ;;
  esac
done
[[ $limit =~ ^[1-9][0-9]*$ ]] || usage "--limit is \"$limit\", must be a number of seconds above 0"
[ ${#stages[@]} -gt 0 ] || stages=(kernels services memcheck racecheck)
[ -x "$programs/tests/gpu_test" ] || usage "--programs: $programs/tests/gpu_test is not there"
mkdir -p "$out" || usage "--out: $out cannot be made"
GATEFOLD_BIN=$(realpath "$programs/bin")
export GATEFOLD_BIN LD_LIBRARY_PATH="$(realpath "$programs")/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

n_failed=0
# run NAME COMMAND...: a part of a stage, with its own log.
run() {
  local name=$1 log=$out/$1.log start=$SECONDS code=0 what
  shift
  timeout "$limit" "$@" >"$log" 2>&1 || code=$?
  what="passed $(grep -c '^\[       OK \]' "$log" || true), skipped $(grep -c '^\[  SKIPPED \] .*(' "$log" || true)"
  if [ $code -ne 0 ]; then
    n_failed=$((n_failed + 1))
    what="FAILED with $code ($what)"
    [ $code -ne 124 ] || what="FAILED: not done in $limit s ($what)"
  fi
  echo "$name: $what, $((SECONDS - start)) s, $log"
  # Why a device is not used, once; and what a sanitizer found.
  grep -m 1 -h 'skipped: ' "$log" || true
  grep -h -E 'ERROR SUMMARY|RACECHECK SUMMARY|^========= (Error|Warning):' "$log" | sort | uniq -c | sort -rn | head -n 20 || true
}

no_sanitizer=""
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if "$programs/tests/gpu_test" --gtest_filter=RowsTest.AddsRows 2>&1 | grep -q 'skipped: no CUDA device'; then
  no_sanitizer="no CUDA device"
elif [ -z "$sanitizer" ]; then
  no_sanitizer="compute-sanitizer is neither on the PATH nor in /usr/local/cuda/bin"
fi
# sanitize TOOL NAME FILTER
sanitize() {
  local pattern patterns
  IFS=: read -ra patterns <<<"$3"
  for pattern in "${patterns[@]}"; do  # gtest says nothing of one that names no test
    "$programs/tests/gpu_test" --gtest_list_tests "--gtest_filter=$pattern" | grep -c '^  ' >/dev/null ||
      usage "no test is named $pattern"
  done
  if [ -n "$no_sanitizer" ]; then
    echo "$1-$2: skipped: $no_sanitizer"
    return
  fi
  local flags=(--tool "$1" --error-exitcode 86 --print-limit 1000)
  # The narrow attention kernel's first lane says for its warp, after a __syncwarp, that a stage was read; of
  # that order racecheck knows nothing, and takes every other lane's read for a race with the next copy.
  [ "$1" != racecheck ] || flags+=(--racecheck-report all --kernel-name-exclude kernel_substring=NarrowKernel)
  run "$1-$2" "$sanitizer" "${flags[@]}" "$programs/tests/gpu_test" "--gtest_filter=$3"
}

for stage in "${stages[@]}"; do
  case $stage in
    kernels)
      run kernels "$programs/tests/gpu_test"
      ;;
    services)
      run services-experts "$programs/tests/cuda_experts_test"
      run services-rows "$programs/tests/device_rows_test"
      run services-model "$programs/tests/cuda_model_test"
      run services-backend "$programs/tests/expert_test" "--gtest_filter=*Device*"
      run services-attention "$programs/tests/attention_test" "--gtest_filter=*Backend*"
      ;;
    memcheck)
      sanitize memcheck products '*GroupsBesideDoNotShow*:*UnitsOfEveryWidth*:*QuantisedWeightsAre*:*ABrokenWeight*:ExpertMlpTest.ComputesInt*:RoutedMlpTest.*'
      sanitize memcheck attention '*OtherRowsOfTheStep*:*HowThePlanCuts*:*ChunkSizes*'
      sanitize memcheck rows 'RowsTest.*:RouterRowsTest.*:SamplingTest.*:AttentionStackTest.*LogitsOfARow*:AttentionStackTest.*StepMayBeRunAgain'
      ;;
    racecheck)
      sanitize racecheck products '*GroupsBesideDoNotShow*:*UnitsOfEveryWidth*:ExpertMlpTest.ComputesInt*'
      sanitize racecheck rows 'RouterRowsTest.*:RoutedMlpTest.TakesAllRowsToAllExperts'
      sanitize racecheck attention '*RotatesAndKeeps*:*RoundsItsOutput*:*OtherRowsOfTheStep*'
      ;;
  esac
done
[ $n_failed -eq 0 ] || { echo "$n_failed failed"; exit 1; }
