#!/usr/bin/env bash
# A failure drill anyone can run:
#   deploy/drill.sh [--model DIR] [--streams N] [--tokens N] [--seconds S] [--port P]
# Starts a cluster of processes on this machine (3 expert-services with every expert on two of them,
# 2 attention-services, 2 routers, a planner), runs streams, kills one process after another in the
# middle of them, and prints a table of what callers saw. Exits 1 if a token was lost or differs from
# the quiet run. Takes about a minute.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${GATEFOLD_BIN:-$root/build/release/bin}

usage() {
  sed -n '3p' "$0" | cut -c5- >&2
  echo "$*" >&2
  exit 2
}

model=$root/models/gatefold-tiny-moe streams=8 tokens=100 seconds=3 port=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,7p' "$0" | cut -c3-; exit 0 ;;
    --*=*) option=${1%%=*} value=${1#*=}; shift ;;
    --*) [ $# -gt 1 ] || usage "$1 needs a value"; option=$1 value=$2; shift 2 ;;
    *) usage "$1 is no flag" ;;
  esac
  case $option in
    --model | --streams | --tokens | --seconds | --port) declare "${option#--}=$value" ;;
    *) usage "$option is no flag of this script" ;;
  esac
done
[[ $seconds =~ ^[0-9]{1,3}(\.[0-9]+)?$ ]] || usage "--seconds is \"$seconds\", must be below 1000"
[[ $streams =~ ^[1-9][0-9]{0,3}$ ]] && [ "$streams" -le 1024 ] ||
  usage "--streams is \"$streams\", must be a number within 1 and 1024"
[[ $tokens =~ ^[1-9][0-9]{0,5}$ ]] || usage "--tokens is \"$tokens\", must be within 1 and 999999"
[[ $port =~ ^([1-9][0-9]{0,4})?$ ]] || usage "--port is \"$port\", must be a port"
for program in gatefold drill_streams; do
  [ -x "$bin/$program" ] || usage "$bin/$program is missing: build first, or set GATEFOLD_BIN"
done

in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
if [ -z "$port" ]; then  # one for each router
  port=7570
  while in_use $port || in_use $((port + 1)); do port=$((port + 2)); done
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/gatefold-drill.XXXXXX") || exit 1
log=$folder/cluster.log
: >"$log"  # what runs in the background may make it after it is first looked at
"$root/deploy/local-cluster.sh" --model "$model" --experts 3 --attention 2 --routers 2 \
  --planner --min-replicas 2 --restart --port "$port" >"$log" 2>&1 &
cluster=$!
leave() {
  trap '' INT TERM
  kill -TERM "$cluster" 2>/dev/null
  wait "$cluster" 2>/dev/null
  rm -rf "$folder"
}
trap leave EXIT
trap 'exit 130' INT TERM

fail() {
  echo "$*" >&2
  tail -n 20 "$log" >&2
  exit 1
}

routers=127.0.0.1:$port,127.0.0.1:$((port + 1))
pid_of() { sed -n "s/^$1 pid \([0-9]*\) .*/\1/p" "$log" | tail -n 1; }
admin() { sed -n 's/^admin //p' "$log" | tail -n 1; }

# await SECONDS COMMAND...: until it succeeds.
await() {
  local tries=$(($1 * 20))
  shift
  until "$@"; do
    [ $((tries--)) -gt 0 ] || return 1
    kill -0 "$cluster" 2>/dev/null || return 1
    sleep 0.05
  done
}

# Every worker is ready at both routers, and no shard is the only one to hold an expert.
settled() {
  local router json
  for router in ${routers//,/ }; do
    json=$("$bin/gatefold" get workers --router "$router" --timeout 2s -o json 2>/dev/null) || return 1
    [ "$(grep -o '"state":"ready"' <<<"$json" | wc -l)" -eq 5 ] || return 1
    [ "$(grep -o '"n_sole_experts":0[,}]' <<<"$json" | wc -l)" -eq 5 ] || return 1
    [ "$(grep -o '"n_experts":0[,}]' <<<"$json" | wc -l)" -eq 2 ] || return 1  # attention's
  done
}

field() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" "$folder/streams"; }

bad=0
# row WHAT COMMAND...: runs streams, and the command in the middle of them.
row() {
  local what=$1
  shift
  await 60 settled || fail "the cluster did not come to rest before: $what"
  : >"$folder/streams"  # else the row before says that these are running
  "$bin/drill_streams" --routers="$routers" --streams="$streams" --tokens="$tokens" \
    --seconds="$seconds" --expect="$folder/quiet" >"$folder/streams" 2>"$folder/errors" &
  local pid=$!
  await 60 grep -q '^running' "$folder/streams" || fail "no stream got a token: $what"
  sleep 0.1
  "$@" >>"$folder/commands" 2>&1 || fail "failed: $* ($(tail -n 1 "$folder/commands"))"
  wait "$pid" || { bad=1; cat "$folder/errors" >&2; }
  printf '%-42s %9s %12s %12s %7s %6s\n' "$what" "$(field stall_ms)" "$(field tokens)" \
    "$(field lost)" "$(field resumed)" "$(field equal)"
}

await 120 grep -q '^ready' "$log" || fail "the cluster did not start"
await 60 settled || fail "the cluster did not come to rest"
"$bin/drill_streams" --routers="$routers" --streams="$streams" --tokens="$tokens" \
  --write="$folder/quiet" >"$folder/streams" || fail "the quiet run failed"

drain() {
  "$bin/gatefold" drain "$1" --router "$(admin)" --wait 60s &&
    "$bin/gatefold" resume "$1" --router "$(admin)"
}
stop() { kill -"$1" "$(pid_of "$2")"; }

printf '%-42s %9s %12s %12s %7s %6s\n' 'what was killed' 'stall ms' 'tokens sent' 'tokens lost' \
  'resumed' 'equal'
row 'nothing' true
row 'a shard (kill -9)' stop KILL expert-0
row 'a shard (SIGTERM: it drains and exits)' stop TERM expert-1
row 'a shard (gatefold drain, then resume)' drain expert-2
row 'an attention-service (kill -9)' stop KILL attention-0
row 'the planner (kill -9)' stop KILL planner
row 'a router (kill -9; clients resume)' stop KILL router-0
exit $bad
