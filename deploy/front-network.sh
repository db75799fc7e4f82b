#!/usr/bin/env bash
# The Dispatcher of docker-compose.yml with its users' and its operators' port on one of its networks alone. Agents'
# containers share another with it, tools' a third, and would reach whatever listens on all addresses.
#   front-network.sh COMMAND ARGUMENT...
set -euo pipefail

name=${OPERATORS_NAME:-midsentence-operators} # has an address there for each Dispatcher, this one among them

for _ in {1..50}; do
  while read -r address _; do
    if [[ " $(hostname -I) " == *" $address "* ]]; then
      export DISPATCHER_HTTP_ADDRESS=$address:8080 DISPATCHER_OPERATOR_ADDRESS=$address:9464
      exec "$@"
    fi
  done < <(getent ahostsv4 "$name")
  sleep 0.2
done
echo "front-network.sh: none of this container's addresses is one of $name" >&2
exit 1
