#!/usr/bin/env bash
# A container engine, a Python base image and a Prometheus image, from Debian's packages alone: no image is pulled.
#   engine.sh engine            start dockerd if no engine answers (its log: /var/log/dockerd.log, its pid: /run/docker.pid)
#   engine.sh base NAME         make image NAME: Debian bookworm, Python 3.11, this machine's CA store
#   engine.sh prometheus NAME BASE    the same with a Prometheus
#   engine.sh redis NAME BASE         and with a Redis
#   engine.sh alertmanager NAME BASE  and with an Alertmanager
set -euo pipefail

docker=$(command -v /usr/bin/docker || command -v docker || echo /usr/bin/docker)

missing() { local tool; for tool; do command -v "$tool" >/dev/null || return 0; done; return 1; }

install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "needed and missing: $*" >&2; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

engine() {
  if ! "$docker" info >/dev/null 2>&1; then
    if missing dockerd iptables; then install docker.io iptables; docker=/usr/bin/docker; fi
    setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
    for _ in $(seq 60); do "$docker" info >/dev/null 2>&1 && break; sleep 0.5; done
    "$docker" info >/dev/null 2>&1 || { tail -20 /var/log/dockerd.log >&2; exit 1; }
  fi
  "$docker" compose version >/dev/null 2>&1 || ! missing docker-compose || install docker-compose
}

base() {
  local name=$1 root
  "$docker" image inspect "$name" >/dev/null 2>&1 && return
  ! missing debootstrap || install debootstrap
  root=$(mktemp -d)
  trap "rm -rf '$root'" EXIT
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,libgomp1 bookworm "$root" >/dev/null
  # pip inside a build trusts what this machine trusts.
  mkdir -p "$root/usr/local/share/ca-certificates"
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
  chroot "$root" update-ca-certificates >/dev/null 2>&1
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . |
    "$docker" import -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$name" >/dev/null
}

# Image NAME: BASE with a Debian package, and the rest of the Dockerfile from standard input.
packaged() {
  local name=$1 base=$2 package=$3
  "$docker" image inspect "$name" >/dev/null 2>&1 && return
  DOCKER_BUILDKIT=1 "$docker" build --quiet --network host -t "$name" - >/dev/null <<DOCKERFILE
FROM $base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends $package && rm -rf /var/lib/apt/lists/*
$(cat)
DOCKERFILE
}

prometheus() {
  packaged "$1" "$2" prometheus <<'DOCKERFILE'
RUN install -d -o nobody -g nogroup /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
DOCKERFILE
}

redis() {
  packaged "$1" "$2" redis-server <<'DOCKERFILE'
RUN install -d -o redis -g redis /data
VOLUME /data
DOCKERFILE
}

alertmanager() {
  packaged "$1" "$2" prometheus-alertmanager <<'DOCKERFILE'
RUN install -d -o nobody -g nogroup /alertmanager
USER nobody
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]
DOCKERFILE
}

case ${1:-} in
  engine) engine ;;
  base) base "${2:?a name for the image}" ;;
  prometheus | redis | alertmanager) "$1" "${2:?a name for the image}" "${3:?the base image}" ;;
  *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
