#!/usr/bin/env bash
# A cluster of processes on this machine, in the foreground:
#   deploy/local-cluster.sh --model DIR --experts N --attention N --port P [--lanes L] [--threads T]
#     [--n-slices S] [--weights KIND] [--routers R] [--planner [--min-replicas M]] [--restart]
# A router listens on 127.0.0.1:P, others on the ports after it. N expert-services each hold an N-th
# of the experts of every layer; with --planner they start empty and a planner assigns M copies of
# each. Prints where everything is, then a line that starts with `ready` once requests can be sent.
# SIGTERM or Ctrl-C stops all of it. If one of the processes ends by itself, says which and why,
# stops the others and exits 1; with --restart it is started again, and its line printed again.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${GATEFOLD_BIN:-$root/build/release/bin}

usage() {
  sed -n '3p' "$0" | cut -c5- >&2
  echo "$*" >&2
  exit 2
}

model='' experts='' attention='' port='' lanes=1 threads='' n_slices=8 routers=1 min_replicas=1
planner='' restart='' weights=checkpoint
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,9p' "$0" | cut -c3-; exit 0 ;;
    --planner | --restart) declare "${1#--}=yes"; shift; continue ;;
    --*=*) option=${1%%=*} value=${1#*=}; shift ;;
    --*) [ $# -gt 1 ] || usage "$1 needs a value"; option=$1 value=$2; shift 2 ;;
    *) usage "$1 is no flag" ;;
  esac
  case $option in
    --model) model=$value; continue ;;
    --weights) weights=$value; continue ;;
    --experts) experts=$value most=256 ;;
    --attention) attention=$value most=64 ;;
    --port) port=$value most=65535 ;;
    --lanes) lanes=$value most=64 ;;
    --routers) routers=$value most=16 ;;
    --min-replicas) min_replicas=$value most=255 ;;
    --threads) threads=$value most=1024 ;;
    --n-slices) n_slices=$value most=256 ;;
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

names=() pids=() commands=()

# start NAME PROGRAM FLAG...: in a session of its own, so that Ctrl-C reaches only this script, which
# stops things in order; killed with this script if it is killed.
start() {
  local name=$1 program=$2
  shift 2
  names+=("$name")
  commands+=("$(printf '%q ' setsid setpriv --pdeathsig KILL "$bin/$program" --name="$name" \
    --model="$model" "$@") >>$(printf %q "$folder/$name.log") 2>&1 </dev/null")
  launch $((${#names[@]} - 1))
}

# launch I: the process of the I-th name.
launch() {
  : >"$folder/${names[$1]}.log"
  eval "${commands[$1]} &"
  pids[$1]=$!
}

tell_where() {
  echo "${names[$1]} pid ${pids[$1]} $(grep -m1 '^listening on ' "$folder/${names[$1]}.log")"
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

# Routers first, so that what they still serve can end well. Then nobody calls the others, and
# they need not wait for calls: the second signal says so.
stop_all() {
  trap '' INT TERM
  local i fronts=()
  for i in "${!names[@]}"; do
    [[ ${names[i]} = router* ]] && fronts+=("${pids[i]}")
  done
  if [ "${#pids[@]}" -gt 0 ]; then
    if [ "${#fronts[@]}" -gt 0 ]; then
      kill -TERM "${fronts[@]}" 2>/dev/null
      await_end 100 "${fronts[@]}" || kill -KILL "${fronts[@]}" 2>/dev/null
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
  held=$i/$experts
  [ -z "$planner" ] || held=none
  start "expert-$i" expert-service --listen="${expert_addresses[i]}" --experts="$held" \
    --threads="$expert_threads" --n-slices="$n_slices" --weights="$weights" --metrics-port=0
done
for ((i = 0; i < attention; i++)); do
  attention_addresses+=("unix:$folder/attention-$i.sock")
  start "attention-$i" attention-service --listen="${attention_addresses[i]}" \
    --threads="$other_threads" --n-slices="$n_slices" --metrics-port=0
done
workers=(--experts="$(join "${expert_addresses[@]}")" --attention="$(join "${attention_addresses[@]}")")
[ -z "$planner" ] || start planner router-service --planner=only --min-replicas="$min_replicas" \
  --n-slices="$n_slices" --admin-listen="unix:$folder/planner-admin.sock" --metrics-port=0 "${workers[@]}"
for ((i = 0; i < routers; i++)); do
  name=router
  [ "$routers" -eq 1 ] || name=router-$i
  start "$name" router-service --listen="127.0.0.1:$((port + i))" --lanes="$lanes" \
    --threads="$other_threads" --n-slices="$n_slices" --metrics-port=0 --admin-listen="unix:$folder/$name-admin.sock" \
    "${workers[@]}"
done

all_ready() {
  local name
  for name in "${names[@]}"; do grep -q '^ready' "$folder/$name.log" || return 1; done
}

until all_ready; do
  all_alive || report_death
  sleep 0.05
done

for i in "${!names[@]}"; do tell_where "$i"; done
echo "admin unix:$folder/$name-admin.sock"
echo "ready 127.0.0.1:$port"

# Tells where the process of the I-th name is once it is ready, unless it ends before.
tell_when_ready() {
  until grep -q '^ready' "$folder/${names[$1]}.log" 2>/dev/null; do
    alive "${pids[$1]}" || return
    sleep 0.05
  done
  tell_where "$1"
}

# Starts what ended again, after a moment, as a Deployment would. Waits for none of them: a router is
# ready when others are, and those may end meanwhile.
revive() {
  local i
  for i in "${!pids[@]}"; do
    alive "${pids[i]}" && continue
    wait "${pids[i]}" 2>/dev/null
    echo "${names[i]} ended with code $?"
    sleep 0.3
    launch "$i"
    tell_when_ready "$i" &
  done
}

# Ends when one of them does; signals are handled by the traps meanwhile. Looks every second, too: of
# what was killed while bash did something else, wait does not know any more.
for ((n = 0; n == 0 || (n < 1000 && ${#restart} > 0); n++)); do
  while all_alive; do
    sleep 1 &
    wait -n "${pids[@]}" $! 2>/dev/null
  done
  [ -z "$restart" ] || revive
done
report_death
