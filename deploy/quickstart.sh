#!/usr/bin/env bash
# From a clone to tokens that come from three expert shards:
#   deploy/quickstart.sh [--keep] [--prompt TEXT] [--port P]
# Installs what is missing, builds, starts one router, one attention-service and three
# expert-services, streams an answer and shows which shard served how much of it.
# --keep leaves the cluster up.
set -uo pipefail
cd "$(dirname "$0")/.."

keep=0 prompt="Once upon a time" port=''
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=1; shift ;;
    --prompt | --port)
      [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"; shift 2 ;;
    *) sed -n '3p' "$0" | cut -c5- >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }
fail() { echo "quickstart: $*" >&2; exit 1; }
in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

bash deploy/install-packages.sh || fail "packages could not be installed"

say "building (minutes the first time, seconds after that)"
if [ ! -f build/release/build.ninja ]; then
  mkdir -p build
  cmake --preset release >build/configure.log 2>&1 ||
    { cat build/configure.log >&2; fail "configure failed"; }
fi
cmake --build --preset release \
  --target gatefold router-service attention-service expert-service make_model ||
  fail "build failed"

model=models/gatefold-tiny-moe
if [ ! -f $model/config.json ]; then
  model=build/models/tiny-random
  say "there is no trained model here: using one of RANDOM weights, so the text will be noise"
  [ -f $model/config.json ] || build/release/bin/make_model --preset tiny --out $model ||
    fail "no model could be made"
fi

if [ -z "$port" ]; then
  port=7070
  while in_use $port; do port=$((port + 1)); done
fi

say "starting 1 router, 1 attention-service, 3 expert-services with $model"
mkdir -p build/quickstart
log=build/quickstart/cluster-$port.log
: >"$log"
# A session of its own with --keep, so that it outlives this terminal.
launch=()
[ $keep = 0 ] || launch=(setsid)
"${launch[@]}" bash deploy/local-cluster.sh --model $model --experts 3 --attention 1 --port "$port" \
  >"$log" 2>&1 </dev/null &
cluster=$!
stop() { kill -TERM $cluster 2>/dev/null; wait $cluster 2>/dev/null; }
trap 'stop; exit 130' INT TERM
until grep -q '^ready' "$log"; do
  kill -0 $cluster 2>/dev/null || { cat "$log" >&2; fail "the cluster did not start"; }
  sleep 0.05
done
sed -n 's/^\([a-z0-9-]*\) pid .* metrics \(.*\)$/  \1\t\2/p' "$log"

say "an answer to \"$prompt\", over gRPC"
build/release/bin/gatefold generate --router "127.0.0.1:$port" --trace --max-tokens 48 "$prompt"
status=$?

# scrape URL: GET over bash's own sockets, for machines without curl.
scrape() {
  local rest=${1#http://}
  local address=${rest%%/*}
  exec 3<>"/dev/tcp/${address%:*}/${address#*:}" || return 1
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
  tr -d '\r' <&3
  exec 3<&-
}
metrics_of() { sed -n "s/^$1 pid .* metrics \(.*\)$/\1/p" "$log"; }
# show NAME PATTERN
show() {
  local url
  url=$(metrics_of "$1")
  echo "  $1  $url"
  scrape "$url" | grep -E "$2" | sed 's/^/    /'
}

say "metrics (Prometheus format; docs/metrics.md lists all)"
show router '^gatefold_(requests_total.*"ok"|request_ttft_seconds_(sum|count)|request_itl_seconds_(sum|count)|router_shard_rows_total)'
show expert-0 '^gatefold_expert_(compute_seconds_total|loaded_bytes)'
show attention-0 '^gatefold_(kv_blocks|attention_compute)'

if [ $keep = 1 ]; then
  trap - INT TERM
  say "the cluster stays up on 127.0.0.1:$port"
  cat <<END
  ask    build/release/bin/gatefold generate --router 127.0.0.1:$port "Your text"
  look   build/release/bin/gatefold get workers --router 127.0.0.1:$port
  stop   kill $cluster
END
else
  say "stopping"
  stop
fi
[ $status = 0 ] || fail "the answer failed"
