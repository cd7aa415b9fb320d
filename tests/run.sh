#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests. Last line of the output:
#   N passed, N failed, N skipped
set -uo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() {
  say "$*"
  printf '\n0 passed, 1 failed, 0 skipped\n'
  exit 1
}

say "packages"
bash deploy/install-packages.sh python3-venv || fail "packages could not be installed"

say "configure"
cmake --preset release -UGATEFOLD_WITH_CUDA || fail "configure failed"
# All CUDA code is compiled, device or not: a machine without a compiler for it gets one from wheels.
if ! grep -q '^GATEFOLD_WITH_CUDA:BOOL=ON' build/release/CMakeCache.txt; then
  say "CUDA compiler"
  if toolkit=$(tools/install-cuda-compiler.sh); then
    cmake --preset release -DGATEFOLD_WITH_CUDA=ON "-DCMAKE_CUDA_COMPILER=$toolkit/bin/nvcc" ||
      fail "configure failed"
  else
    echo "skipped: none could be had, so CUDA code is not compiled"
  fi
fi

say "build"
cmake --build --preset release || fail "build failed"

say "tests"
results=$PWD/build/release/test-results
rm -rf "$results" && mkdir -p "$results"
# Every test program leaves the results of its cases there; a program that crashes leaves none.
GTEST_OUTPUT="xml:$results/" ctest --test-dir build/release -j2 --output-on-failure \
  --output-junit "$results/ctest.xml"
status=$?
[ -s "$results/ctest.xml" ] || fail "the tests left no report"

passed=0 failed=0 skipped=0
# sum NAME FILE: over the suites of one program.
sum() { sed -n "s/.*<testsuite .* $1=\"\([0-9]*\)\".*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'; }
while read -r name outcome; do
  xml=$results/$name.xml
  if [ -s "$xml" ]; then
    n_failed=$(sum failures "$xml") n_skipped=$(( $(sum skipped "$xml") + $(sum disabled "$xml") ))
    n_passed=$(( $(sum tests "$xml") - n_failed - n_skipped ))
    [ "$outcome" = run ] || [ "$n_failed" -gt 0 ] || n_failed=1  # it failed after its cases
  else
    n_passed=0 n_failed=0 n_skipped=0
    case $outcome in
      run) n_passed=1 ;;
      notrun | disabled) n_skipped=1 ;;
      *) n_failed=1 ;;
    esac
  fi
  passed=$((passed + n_passed)) failed=$((failed + n_failed)) skipped=$((skipped + n_skipped))
done < <(sed -n 's/.*<testcase name="\([^"]*\)".* status="\([a-z]*\)".*/\1 \2/p' "$results/ctest.xml")

if [ "$skipped" -gt 0 ]; then
  say "skipped"
  grep -ho '<testcase name="[^"]*"[^>]*result="skipped"[^>]*' "$results"/*_test.xml |
    sed -E 's/<testcase name="([^"]*)".* classname="([^"]*)"( message="([^"]*)")?.*/\2.\1 \4/'
fi
[ "$failed" -eq 0 ] || status=1
[ $((passed + failed)) -gt 0 ] || { failed=1 status=1; }  # nothing ran
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
exit $status
