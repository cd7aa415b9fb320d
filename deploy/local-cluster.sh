#!/usr/bin/env bash
# A cluster of processes on this machine, in the foreground:
#   deploy/local-cluster.sh --model DIR --experts N --attention N --port P [--lanes L] [--threads T]
# One router listens on 127.0.0.1:P; N expert-services each hold an N-th of the experts of every
# layer. Prints where everything is, then a line that starts with `ready` once requests can be sent.
# SIGTERM or Ctrl-C stops all of it. If one of the processes ends by itself, says which and why,
# stops the others and exits 1.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${GATEFOLD_BIN:-$root/build/release/bin}

usage() {
  sed -n '3p' "$0" | cut -c5- >&2
  echo "$*" >&2
  exit 2
}

model='' experts='' attention='' port='' lanes=1 threads=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,7p' "$0" | cut -c3-; exit 0 ;;
    --*=*) option=${1%%=*} value=${1#*=}; shift ;;
    --*) [ $# -gt 1 ] || usage "$1 needs a value"; option=$1 value=$2; shift 2 ;;
    *) usage "$1 is no flag" ;;
  esac
  case $option in
    --model) model=$value; continue ;;
    --experts) experts=$value most=256 ;;
    --attention) attention=$value most=64 ;;
    --port) port=$value most=65535 ;;
    --lanes) lanes=$value most=64 ;;
    --threads) threads=$value most=1024 ;;
    *) usage "$option is no flag of this script" ;;
  esac
  [[ $value =~ ^[1-9][0-9]{0,4}$ ]] && [ "$value" -le $most ] ||
    usage "$option is \"$value\", must be a number within 1 and $most"
done
for required in model experts attention port; do
  [ -n "${!required}" ] || usage "--$required is missing"
done
[ -f "$model/config.json" ] || usage "--model is \"$model\", which holds no config.json"
for program in router-service attention-service expert-service; do
  [ -x "$bin/$program" ] || usage "$bin/$program is missing: build first, or set GATEFOLD_BIN"
done

# Shards compute at the same time, so they share the cores; attention works while they wait.
cores=$(nproc)
expert_threads=${threads:-$(( cores > experts ? cores / experts : 1 ))}
other_threads=${threads:-$cores}

folder=$(mktemp -d "${TMPDIR:-/tmp}/gatefold.XXXXXX") || exit 1  # mode 0700
[ ${#folder} -lt 80 ] || { rmdir "$folder"; folder=$(mktemp -d /tmp/gatefold.XXXXXX) || exit 1; }

names=() pids=()

# start NAME PROGRAM FLAG...: in a session of its own, so that Ctrl-C reaches only this script, which
# stops things in order; killed with this script if it is killed.
start() {
  local name=$1 program=$2
  shift 2
  setsid setpriv --pdeathsig KILL "$bin/$program" --name="$name" --model="$model" "$@" \
    >"$folder/$name.log" 2>&1 </dev/null &
  names+=("$name") pids+=($!)
}

alive() { kill -0 "$1" 2>/dev/null; }

# Waits until none of the processes is left, at most $1 tenths of a second.
await_end() {
  local tenths=$1 pid
  shift
  for pid; do
    while alive "$pid"; do
      [ $((tenths--)) -gt 0 ] || return 1
      sleep 0.1
    done
  done
}

# The router first, so that what it still serves can end well. Then nobody calls the others, and
# they need not wait for calls: the second signal says so.
stop_all() {
  trap '' INT TERM
  local n=${#pids[@]}
  if [ "$n" -gt 0 ]; then
    if [ "${names[n - 1]}" = router ]; then
      kill -TERM "${pids[n - 1]}" 2>/dev/null
      await_end 100 "${pids[n - 1]}" || kill -KILL "${pids[n - 1]}" 2>/dev/null
    fi
    kill -TERM "${pids[@]}" 2>/dev/null
    await_end 2 "${pids[@]}" || kill -TERM "${pids[@]}" 2>/dev/null
    await_end 50 "${pids[@]}" || kill -KILL "${pids[@]}" 2>/dev/null
    wait "${pids[@]}" 2>/dev/null
  fi
  rm -rf "$folder"
}

stop_and_leave() {
  echo stopping
  stop_all
  echo stopped
  exit 0
}
trap stop_and_leave INT TERM
trap 'stop_all; exit 1' HUP

# Which process ended, and what it said last.
report_death() {
  local i
  for i in "${!pids[@]}"; do
    alive "${pids[i]}" && continue
    wait "${pids[i]}" 2>/dev/null
    echo "${names[i]} (pid ${pids[i]}) ended with code $?; its last lines:" >&2
    tail -n 20 "$folder/${names[i]}.log" | sed 's/^/  /' >&2
  done
  stop_all
  exit 1
}

all_alive() {
  local pid
  for pid in "${pids[@]}"; do alive "$pid" || return 1; done
}

join() { local IFS=,; echo "$*"; }

expert_addresses=() attention_addresses=()
for ((i = 0; i < experts; i++)); do
  expert_addresses+=("unix:$folder/expert-$i.sock")
  start "expert-$i" expert-service --listen="${expert_addresses[i]}" --experts="$i/$experts" \
    --threads="$expert_threads" --metrics-port=0
done
for ((i = 0; i < attention; i++)); do
  attention_addresses+=("unix:$folder/attention-$i.sock")
  start "attention-$i" attention-service --listen="${attention_addresses[i]}" \
    --threads="$other_threads" --metrics-port=0
done
start router router-service --listen="127.0.0.1:$port" --lanes="$lanes" \
  --threads="$other_threads" --metrics-port=0 --experts="$(join "${expert_addresses[@]}")" \
  --attention="$(join "${attention_addresses[@]}")"

until grep -q '^ready' "$folder/router.log"; do
  all_alive || report_death
  sleep 0.05
done

for i in "${!names[@]}"; do
  echo "${names[i]} pid ${pids[i]} $(grep -m1 '^listening on ' "$folder/${names[i]}.log")"
done
echo "ready 127.0.0.1:$port"

# Ends when one of them does; signals are handled by the traps meanwhile.
wait -n "${pids[@]}"
report_death
