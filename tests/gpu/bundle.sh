#!/usr/bin/env bash
# Puts what a machine with a device, a driver and little else needs into FOLDER, which must be new or
# empty: the services, the tests and benchmarks of the device, and every library they load but libc.
#   tests/gpu/bundle.sh FOLDER [BUILD]     default: build/release, built with CUDA
# There, beside a checkout: tests/gpu/check.sh --programs FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1-} in
  "" | -*) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
folder=$1 build=${2:-build/release}
[ $# -le 2 ] || { echo "bundle.sh: $3 is one argument too many" >&2; exit 2; }
# What is there already would be stripped, too.
[ -z "$(ls -A "$folder" 2>/dev/null)" ] || { echo "bundle.sh: $folder is not empty" >&2; exit 2; }
[ -x "$build/tests/gpu_test" ] || { echo "bundle.sh: $build was not built with CUDA" >&2; exit 2; }

mkdir -p "$folder"/{bin,tests,lib}
for program in gatefold router-service attention-service expert-service make_model gpu_expert_bench gpu_attention_bench; do
  cp "$build/bin/$program" "$folder/bin/"
done
for program in gpu_test cuda_experts_test cuda_model_test device_rows_test expert_test attention_test; do
  cp "$build/tests/$program" "$folder/tests/"
done
strip "$folder"/bin/* "$folder"/tests/*
# What belongs to the kernel's and the C library's side is the other machine's own.
ldd "$folder"/bin/* "$folder"/tests/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -v -E '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so' |
  xargs -r cp -L -t "$folder/lib"
echo "$folder: $(du -sh "$folder" | cut -f 1)"
