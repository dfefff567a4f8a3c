#!/usr/bin/env bash
# Installs and starts what the tests need: as root on Debian by itself, elsewhere it says what is missing and fails.
set -euo pipefail

say() { echo "setup: $*" >&2; }

# program -> Debian package
declare -A packages=(
  [cc]=gcc [make]=make [pkg-config]=pkg-config [git]=git
  [docker]=docker-cli [dockerd]=docker.io [ip]=iproute2 [nsenter]=util-linux
  [docker-registry]=docker-registry [skopeo]=skopeo [docker-compose]=docker-compose
  [rsync]=rsync [getfattr]=attr [getfacl]=acl [setcap]=libcap2-bin
  [zstd]=zstd [tar]=tar [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs
  [htpasswd]=apache2-utils [openssl]=openssl [jq]=jq
)
PATH="$PATH:/usr/sbin:/sbin"

missing=()
for program in "${!packages[@]}"; do
  if ! command -v "$program" >/dev/null; then
    package="${packages[$program]}"
    # Older Debian has the client inside docker.io.
    if [ "$package" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1; then package=docker.io; fi
    missing+=("$package")
  fi
done

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (Debian package names)."
    say "Install them, or run this as root on Debian: sudo apt-get install ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # A policy that forbids starting services keeps packages from failing where there is no init.
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

if ! engine_answers; then
  if [ -n "${DOCKER_HOST:-}" ]; then
    say "no engine answers at DOCKER_HOST=$DOCKER_HOST: $(docker version 2>&1 | tail -n 1)"
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    say "no engine answers, or you may not use it: $(docker version 2>&1 | tail -n 1)"
    say "Start it (sudo systemctl start docker) and join its group (sudo usermod -aG docker $USER)."
    exit 1
  fi
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    log=/var/log/dockerd.log
    say "starting dockerd, its log is $log"
    # Inside containers the kernel's overlay may be refused; the engine then chooses by itself.
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
  fi
  for _ in $(seq 120); do
    if engine_answers; then break; fi
    sleep 0.5
  done
  if ! engine_answers; then
    say "the engine did not come up; the end of its log:"
    tail -n 20 "${log:-/dev/null}" >&2 || true
    exit 1
  fi
fi

say "engine $(docker version --format '{{.Server.Version}}'), $(docker-registry --version 2>/dev/null | head -n 1)"
