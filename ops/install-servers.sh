#!/usr/bin/env bash
# Install the servers that tests start privately (RabbitMQ, PostgreSQL, Redis, Mosquitto) and the outside check of XML
# signatures (xmlsec1). Called by `make test`.
# A part whose MINGLUO_TEST_…_URL is given is not needed. System services are not started:
# a policy-rc.d forbids it while apt runs, and is removed after unless it stood before.
set -euo pipefail

policy=/usr/sbin/policy-rc.d

missing() {
  local packages=()
  [[ -n ${MINGLUO_TEST_AMQP_URL:-} || -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || packages+=(rabbitmq-server)
  [[ -n ${MINGLUO_TEST_DATABASE_URL:-} ]] || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
    packages+=(postgresql)
  [[ -n ${MINGLUO_TEST_REDIS_URL:-} ]] || command -v redis-server >/dev/null || [[ -x /usr/bin/redis-server ]] ||
    packages+=(redis-server)
  command -v mosquitto >/dev/null || [[ -x /usr/sbin/mosquitto ]] || packages+=(mosquitto)
  command -v xmlsec1 >/dev/null || packages+=(xmlsec1)
  echo "${packages[*]-}"
}

refuse() {
  cat >&2 <<TEXT
make test needs: $1
$2
Install them (Debian: apt-get install $1), or point the tests at running ones:
  MINGLUO_TEST_AMQP_URL=amqp://…  MINGLUO_TEST_DATABASE_URL=postgresql://…  MINGLUO_TEST_REDIS_URL=redis://…
TEXT
  exit 1
}

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

start_no_services() {
  [[ ! -e $policy ]] || return 0
  trap 'as_root rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null
}

packages="$(missing)"
[[ -n $packages ]] || exit 0
command -v apt-get >/dev/null || refuse "$packages" "This system has no apt-get, so they cannot be installed here."
[[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null || refuse "$packages" "Neither root nor sudo without a password."
echo "servers: installing $packages (once)"
start_no_services
# shellcheck disable=SC2086  # a list of package names
{ apt update && apt install -y --no-install-recommends $packages; } ||
  refuse "$packages" "apt-get failed; its messages are above."
left="$(missing)"
[[ -z $left ]] || refuse "$left" "apt-get succeeded, but they are not where they should be."
