#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, and only those that are missing.
# Asks for root through sudo when it is not root. docs/dependencies.md says why each is here.
set -euo pipefail
packages=(g++ cmake ninja-build pkg-config python3 xz-utils nlohmann-json3-dev libfmt-dev libcli11-dev libpcre2-dev
  libxxhash-dev libreadline-dev libboost1.81-dev libssl-dev doctest-dev)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "Installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "nautile: these packages are missing and there is no sudo: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
