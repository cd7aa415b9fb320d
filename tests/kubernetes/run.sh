#!/usr/bin/env bash
# The chart on a real cluster, changed and hurt under load:
#   tests/kubernetes/run.sh [--image REPOSITORY:TAG] [--values FILE] [--streams N] [--tokens N]
#                           [--drain-node NODE]
# Needs kubectl whose context is a cluster, helm ($HELM or on the PATH), an image that its nodes can
# get, and build/release/bin/drill_streams, which is copied into a pod of that image. Installs into a
# namespace of its own, which is deleted at the end, and prints what the streams saw of each change.
# NODE, if given, is drained and taken back: all its pods are evicted, other people's as well.
# Exits 1 if a request failed, a token was lost or is another than in the quiet run, a network policy
# lets through more or less than it should, or the release left something behind; 77 where there is
# nothing to run it on. Takes about ten minutes.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
streams_program=${GATEFOLD_BIN:-$root/build/release/bin}/drill_streams
chart=$root/helm/gatefold
helm=${HELM:-helm}

image=gatefold:0.1.0 values=$chart/examples/laptop.yaml streams=4 tokens=100 drain_node=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,12p' "$0" | cut -c3-; exit 0 ;;
    --image | --values | --streams | --tokens | --drain-node)
      [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
      flag=${1#--}
      declare "${flag//-/_}=$2"; shift 2 ;;
    *) echo "$1 is no flag of this script" >&2; exit 2 ;;
  esac
done

skip() { echo "skipped: $*"; exit 77; }
command -v kubectl >/dev/null || skip "there is no kubectl"
command -v "$helm" >/dev/null || skip "there is no helm; \$HELM may name it"
[ -x "$streams_program" ] || skip "$streams_program is not built"
kubectl get --raw /readyz --request-timeout=5s >/dev/null 2>&1 || skip "kubectl reaches no cluster"

release=drill name=drill-gatefold
folder=$(mktemp -d "${TMPDIR:-/tmp}/gatefold-kubernetes.XXXXXX") || exit 1
namespace=gatefold-$(basename "$folder" | tr '[:upper:].' '[:lower:]-' | tail -c 7)
drained=''
leave() {
  trap '' INT TERM
  [ -z "$drained" ] || kubectl uncordon "$drained" >/dev/null
  kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1
  rm -rf "$folder"
}
trap leave EXIT
trap 'exit 130' INT TERM

k() { kubectl --namespace "$namespace" "$@"; }
fail() {
  echo "failed: $*" >&2
  k get pods --output wide >&2
  k get events --sort-by=.lastTimestamp 2>/dev/null | tail -n 15 >&2
  exit 1
}
# await SECONDS COMMAND...: until it succeeds.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || return 1
    sleep 0.5
  done
}
pods() { k get pods --selector "app.kubernetes.io/instance=$release,app.kubernetes.io/component=$1" "${@:2}"; }
pod() { pods "$1" --output 'jsonpath={.items[0].metadata.name}'; }
load() { k exec load -- "$@"; }
. "$(dirname "$0")/policies.sh"

# As many pods of a component as wanted are ready, and none is on its way out.
ready() {
  [ "$(pods "$1" --output 'jsonpath={range .items[*]}{.metadata.deletionTimestamp}{.status.containerStatuses[0].ready} {end}' |
    tr ' ' '\n' | sort | uniq -c | xargs)" = "$2 true" ]
}
# ... and the router sees $1 shards that are ready, all with experts.
settled() {
  local json
  ready router "$n_routers" && ready planner 1 && ready attention "$n_attention" && ready expert "$1" ||
    return 1
  json=$(load gatefold get workers --router "$name-router:7070" --timeout 3s --output json |
    tr '{' '\n' | grep '"state":"ready"') || return 1
  [ "$(grep -c '"kind":"expert"' <<<"$json")" -eq "$1" ] &&
    [ "$(grep -c '"n_experts":0[,}]' <<<"$json")" -eq "$n_attention" ]
}

bad=0
printed() { printf '%-44s %8s %9s %12s %11s %8s %6s\n' "$@"; }
field() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" "$folder/streams"; }
# row WHAT EXPERTS COMMAND...: the command under streams, and on until the cluster is at rest with so
# many experts' pods.
row() {
  local what=$1 experts=$2 start took
  shift 2
  load bash -c 'echo $$ >/load/pid; exec /load/drill_streams "$@"' - --routers="$name-router:7070" \
    --streams="$streams" --tokens="$tokens" --seconds=900 --expect=/load/quiet \
    >"$folder/streams" 2>"$folder/errors" &
  local pid=$!
  await 60 grep -q '^running' "$folder/streams" || fail "no stream got a token: $what"
  start=$SECONDS
  "$@" >"$folder/command" 2>&1 || fail "$what: $* ($(tail -n 1 "$folder/command"))"
  await 300 settled "$experts" || fail "$what: the cluster does not come to rest"
  took=$((SECONDS - start))
  load bash -c 'kill -TERM $(</load/pid)'
  wait "$pid" || { bad=1; cat "$folder/errors" >&2; }
  printed "$what" "$took" "$(field stall_ms)" "$(field tokens)" "$(field lost)" "$(field resumed)" \
    "$(field equal)"
}

install_flags=(--values "$values" --set "image.repository=${image%:*},image.tag=${image##*:}")
start=$SECONDS
"$helm" install "$release" "$chart" --namespace "$namespace" --create-namespace "${install_flags[@]}" \
  >"$folder/install" || fail "helm install"
elsewhere='{}'  # than the node that is drained: the pod of the streams is to see it
[ -z "$drain_node" ] || elsewhere='{"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
  "nodeSelectorTerms": [{"matchFields": [
    {"key": "metadata.name", "operator": "NotIn", "values": ["'"$drain_node"'"]}]}]}}}'
k run load --image "$image" --restart Never --overrides '{"spec": {
    "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
    "affinity": '"$elsewhere"',
    "volumes": [{"name": "scratch", "emptyDir": {}}],
    "containers": [{"name": "load", "image": "'"$image"'", "command": ["sleep", "infinity"],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/load"}]}]}}' >/dev/null
k rollout status "deploy/$name-router" --timeout 10m >/dev/null || fail "the router did not become ready"
took=$((SECONDS - start))
k wait --for=condition=Ready pod/load --timeout 2m >/dev/null || fail "the pod of the load"
k cp "$streams_program" load:/load/drill_streams || fail "kubectl cp"
n_routers=$(k get "deploy/$name-router" --output 'jsonpath={.spec.replicas}')
n_attention=$(k get "statefulset/$name-attention" --output 'jsonpath={.spec.replicas}')
await 120 settled 3 || fail "the cluster did not come to rest"
load /load/drill_streams --routers="$name-router:7070" --streams="$streams" --tokens="$tokens" \
  --write=/load/quiet >/dev/null || fail "the quiet run"

printed 'what was done' 'took s' 'stall ms' 'tokens sent' 'tokens lost' 'resumed' 'equal'
printed 'helm install, until the router is ready' "$took" '' '' '' '' ''
start=$SECONDS
"$helm" test "$release" --namespace "$namespace" >"$folder/test" 2>&1 || fail "helm test"
printed 'helm test' $((SECONDS - start)) '' '' '' '' ''

start=$SECONDS
policies >"$folder/policies" || { bad=1; cat "$folder/policies" >&2; }
printed "network policies: $(tail -n 1 "$folder/policies")" $((SECONDS - start)) '' '' '' '' ''

scale() { k scale "deploy/$name-expert-cpu" --replicas "$1"; }
# A pod of a component is asked to go, by the way that a node's drain asks.
evict() {
  local pod
  pod=$(pod "$1")
  kubectl create --raw "/api/v1/namespaces/$namespace/pods/$pod/eviction" -f - <<<'{
    "apiVersion": "policy/v1", "kind": "Eviction",
    "metadata": {"name": "'"$pod"'", "namespace": "'"$namespace"'"}}'
}
restart() { k rollout restart "$1/$name-$2" && k rollout status "$1/$name-$2" --timeout 5m; }
upgrade() {
  "$helm" upgrade "$release" "$chart" --namespace "$namespace" "${install_flags[@]}" \
    --set commonLabels.drill=upgraded && k rollout status "deploy/$name-router" --timeout 5m
}
row 'nothing' 3 true
row 'experts: 3 to 5 pods' 5 scale 5
row 'experts: 5 to 2 pods' 2 scale 2
row 'experts: 2 to 3 pods' 3 scale 3
row 'a pod of experts is deleted' 3 k delete pod "$(pod expert)"
row 'a pod of experts is killed (--force)' 3 k delete pod "$(pod expert)" --force --grace-period 0
row 'a pod of experts is evicted' 3 evict expert
row 'rollout restart of the experts' 3 restart deploy expert-cpu
row 'rollout restart of the planner' 3 restart deploy planner
row 'rollout restart of attention' 3 restart statefulset attention
row 'attention is killed (--force)' 3 k delete pod "$(pod attention)" --force --grace-period 0
row 'rollout restart of the router' 3 restart deploy router
row 'helm upgrade that restarts all pods' 3 upgrade
if [ -n "$drain_node" ]; then
  drained=$drain_node  # to be taken back, however this ends
  row 'a node is drained' 3 kubectl drain "$drain_node" --ignore-daemonsets --delete-emptydir-data
fi

"$helm" uninstall "$release" --namespace "$namespace" --wait >/dev/null || fail "helm uninstall"
# All but the pod of helm test, which is Helm's to keep, for its log.
left() {
  k get all,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,persistentvolumeclaims \
    --selector "app.kubernetes.io/instance=$release" --output name | grep -v -- "^pod/$name-test\$"
}
nothing_left() { [ -z "$(left)" ]; }
start=$SECONDS
await 180 nothing_left || { bad=1; echo "helm uninstall left: $(left | xargs)"; }
printed 'helm uninstall, until nothing is left' $((SECONDS - start)) '' '' '' '' ''
exit $bad
