# Sourced by run.sh. Whether the chart's network policies let through what they should, and nothing
# else: from inside pods, by connecting. Where the cluster does not enforce policies it says so.

# caller COMPONENT: its first pod; load is the pod of the streams, which is no part of the release.
caller() { if [ "$1" = load ]; then echo load; else pod "$1"; fi; }
# connects FROM TO PORT: to the last pod of TO, so that experts have another one to call.
connects() {
  local address
  address=$(pods "$2" --output 'jsonpath={.items[-1:].status.podIP}')
  k exec "$(caller "$1")" -- timeout 3 bash -c "</dev/tcp/$address/$3" 2>/dev/null
}

declare -A port=([router]=7070 [planner]=7070 [attention]=7072 [expert]=7071)
policies() {
  local from to wrong=()
  ! connects load attention 7072 || { echo "not enforced by this cluster"; return 0; }
  for from in load router planner attention expert; do
    for to in router planner attention expert; do
      [ "$from" != "$to" ] || [ "$from" = expert ] || continue  # a pod reaches itself
      case $from-$to in
        load-router | router-attention | router-expert | planner-expert | expert-expert)
          connects "$from" "$to" "${port[$to]}" || wrong+=("$from does not reach $to") ;;
        *) ! connects "$from" "$to" "${port[$to]}" || wrong+=("$from reaches $to") ;;
      esac
    done
  done
  for to in router planner attention expert; do
    ! connects load "$to" 9090 || wrong+=("anybody reaches the metrics of $to")
  done
  # As Prometheus' pods are known by default (networkPolicy.scrapers).
  k label pod load app.kubernetes.io/name=prometheus >/dev/null
  for to in router planner attention expert; do
    await 20 connects load "$to" 9090 || wrong+=("prometheus does not reach the metrics of $to")
  done
  k label pod load app.kubernetes.io/name- >/dev/null
  [ ${#wrong[@]} -eq 0 ] || { printf '%s\n' "${wrong[@]}"; return 1; }
  echo "as they should be"
}
