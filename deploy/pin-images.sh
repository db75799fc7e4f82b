#!/usr/bin/env bash
# For .env: each image that docker-compose.yml takes from elsewhere, by the digest that its tag has now.
#   bash deploy/pin-images.sh >> .env
# What the environment names instead (BASE=python:3.11-bookworm) is pinned in its place.
set -euo pipefail

docker=${DOCKER:-docker}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sed -nE 's/.*\$\{([A-Z]+_IMAGE|BASE|HAPROXY_BASE):-([^}]*)\}.*/\1 \2/p' docker-compose.yml | sort -u |
  while read -r name image; do
    image=${!name:-$image}
    [ -n "$image" ] || continue # HAPROXY_BASE: Debian's, on BASE
    "$docker" pull --quiet "$image" >&2 </dev/null
    digest=$("$docker" image inspect --format '{{index .RepoDigests 0}}' "$image" </dev/null) # fails where there is none
    echo "$name=$digest"
  done
