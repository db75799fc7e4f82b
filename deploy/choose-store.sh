#!/usr/bin/env bash
# The Dispatcher of docker-compose.yml on the store that there is: Redis where the profile `scaled` has brought it, else
# a file. One service cannot say both: nothing in a compose file tells its profiles apart.
#   choose-store.sh COMMAND ARGUMENT...
# DISPATCHER_STORE, where .env or the image says it, is left as it is.
set -euo pipefail

redis=${REDIS_HOST:-midsentence-redis} # the alias of compose's redis: no other network's name
chosen=${CHOSEN:-/var/lib/midsentence/chosen}/redis
password=${REDIS_PASSWORD_FILE:-/keys/redis}

answers() { timeout 2 bash -c ": </dev/tcp/$redis/6379" 2>/dev/null; }

if [ -n "${DOTENV_DISPATCHER_STORE:-${DISPATCHER_STORE:-}}" ]; then
  exec "$@"
fi
# Once Redis, always Redis, while this container lives: a Dispatcher that starts while Redis is away has to wait for it,
# or users would be told that their sessions do not exist.
if [ -e "$chosen" ] || answers; then
  touch "$chosen"
  secret=$(<"$password")
  export DISPATCHER_STORE=redis://dispatcher:$secret@$redis:6379/0
else
  export DISPATCHER_STORE=sqlite:////var/lib/midsentence/data/sessions.db
  # Redis may come later: it starts beside this, or the profile is added to what runs. Then end, to be started again.
  me=$$
  (until answers; do sleep 1 && kill -0 $me || exit; done; touch "$chosen"; while kill -TERM $me; do sleep 1; done) >/dev/null 2>&1 &
fi
exec "$@"
