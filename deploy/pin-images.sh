#!/usr/bin/env bash
# For .env: each image that docker-compose.yml takes from elsewhere, by the digest that its tag has now.
#   bash deploy/pin-images.sh >> .env
# What the environment or .env names instead (BASE=python:3.11-bookworm) is pinned in its place; what is pinned already, by
# the digest that its tag has got since.
set -euo pipefail

docker=${DOCKER:-docker}
env_file=${ENV_FILE:-.env}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

in_env_file() {
  [ ! -e "$env_file" ] || sed -nE "s/^$1=[\"']?([^\"'[:space:]]*).*/\1/p" "$env_file" | tail -n 1
}

# An image by name, tag and digest. Not by what `image inspect` has: that is of any name under which it was ever pulled.
pinned() {
  local image=$1 digest
  if [[ $image =~ ^(.+:[^/@]+)@ ]]; then image=${BASH_REMATCH[1]}; fi
  digest=$("$docker" pull "$image" </dev/null | tee /dev/stderr | sed -n 's/^Digest: //p')
  [ -n "$digest" ] || { echo "pin-images.sh: $docker does not say the digest of $image" >&2 && return 1; }
  echo "${image%@*}@$digest"
}

sed -nE 's/.*\$\{([A-Z]+_IMAGE|BASE|HAPROXY_BASE):-([^}]*)\}.*/\1 \2/p' docker-compose.yml | sort -u |
  while read -r name default; do
    image=${!name:-$(in_env_file "$name")}
    image=${image:-$default}
    [ -n "$image" ] || continue # HAPROXY_BASE: Debian's, on BASE
    image=$(pinned "$image")
    echo "$name=$image"
  done
