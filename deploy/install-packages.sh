#!/usr/bin/env bash
# Installs the Debian packages that the build needs and that are missing, and those it is given:
#   deploy/install-packages.sh [PACKAGE ...]
# Says nothing if none is missing. docs/dependencies.md says what each is for.
set -euo pipefail

packages=(
  cmake ninja-build g++ ccache pkg-config
  libabsl-dev libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc
  libssl-dev
  prometheus-cpp-dev libboost-dev
  nlohmann-json3-dev libpcre2-dev libutf8proc-dev
  libgtest-dev libgmock-dev libboost-context-dev
  "$@"
)

if ! command -v dpkg-query >/dev/null; then
  echo "This is no Debian system. The build needs Debian 12's: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=(env)
elif command -v sudo >/dev/null; then
  as_root=(sudo)
else
  echo "Packages are missing, and there is neither root nor sudo to install them. As root, run:" >&2
  echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
