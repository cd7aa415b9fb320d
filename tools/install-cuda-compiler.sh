#!/usr/bin/env bash
# Installs NVIDIA's CUDA compiler and runtime from its Python wheels, for machines without the toolkit:
#   tools/install-cuda-compiler.sh [DIR]     default: build/cuda-compiler
# The last line it prints is the toolkit's folder, for CUDAToolkit_ROOT and CUDACXX=FOLDER/bin/nvcc.
# It compiles and links; to run anything, a driver and a device are needed as ever.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-build/cuda-compiler}
version=13.0  # what drivers since 2025 run; a newer compiler would ask for a newer one

fail() { echo "install-cuda-compiler: $*" >&2; exit 1; }
toolkit() { compgen -G "$dir/lib/python3*/site-packages/nvidia/cu13" | head -n 1; }

if [ -z "$(toolkit || true)" ] || [ ! -x "$(toolkit)/bin/nvcc" ]; then
  command -v python3 >/dev/null || fail "python3 is needed"
  python3 -m venv "$dir" >/dev/null 2>&1 || fail "python3 -m venv failed; Debian: apt-get install python3-venv"
  echo "installing NVIDIA's compiler $version (about 200 MB) into $dir" >&2
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "nvidia-cuda-nvcc==$version.*" \
    "nvidia-cuda-runtime==$version.*" "nvidia-cuda-cccl==$version.*" "nvidia-cuda-crt==$version.*" \
    "nvidia-nvvm==$version.*" >&2 || fail "the wheels could not be installed"
fi
root=$(cd "$(toolkit)" && pwd)
# What the wheels lack: the folder's usual name, and the names that linkers look for.
[ -e "$root/lib64" ] || ln -s lib "$root/lib64"
[ -e "$root/lib/libcudart.so" ] || ln -s libcudart.so.13 "$root/lib/libcudart.so"
"$root/bin/nvcc" --version >/dev/null || fail "$root/bin/nvcc does not run"
echo "$root"
