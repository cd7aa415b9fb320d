#!/usr/bin/env bash
# Runs every fuzz target, 60 seconds each: tests/fuzz/run.sh [SECONDS] [TARGET ...]. Needs clang 14.
# What they find stays in build/fuzz/corpus; exit code 1, and the input's path, if one crashed.
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(safetensors config manifest tokenizer chat_template frame)
cmake --preset fuzz >/dev/null && cmake --build --preset fuzz --target "${targets[@]/%/_fuzz}" || exit 1
status=0
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target log=build/fuzz/$target.log
  mkdir -p "$corpus"
  folders=("$corpus")
  [ ! -d "tests/fuzz/seeds/$target" ] || folders+=("tests/fuzz/seeds/$target")
  printf '%-14s ' "$target"
  # A template may take ten million steps, which are six seconds of such a build's CPU time.
  if "build/fuzz/bin/${target}_fuzz" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=60 \
    -artifact_prefix="build/fuzz/$target-" "${folders[@]}" >"$log" 2>&1; then
    grep -o 'Done.*' "$log"
  else
    status=1
    echo "FAILED, see $log"
    grep -E '^==[0-9]+==|SUMMARY|Test unit written' "$log" | head -5
  fi
done
exit $status
