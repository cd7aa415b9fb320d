#!/usr/bin/env bash
# Scrape targets for Prometheus, from what deploy/local-cluster.sh prints:
#   deploy/local-cluster.sh --model DIR ... | tee cluster.log
#   mkdir -p deploy/prometheus/targets
#   deploy/prometheus/targets.sh cluster.log >deploy/prometheus/targets/local.json
# Of a process that was started again, the last line counts.
set -euo pipefail
[ $# = 1 ] && [ -r "$1" ] || { sed -n '2,6p' "$0" | cut -c3- >&2; exit 2; }

separator='['
while read -r name address; do
  component=${name%-[0-9]*}
  printf '%s\n  {"targets": ["%s"], "labels": {"release": "local", "component": "%s", "pod": "%s"}}' \
    "$separator" "$address" "$component" "$name"
  separator=,
done < <(sed -n 's|^\([a-z0-9-]*\) pid .* metrics http://\([^/]*\)/metrics$|\1 \2|p' "$1" |
  tac | awk '!seen[$1]++' | tac)
[ "$separator" = , ] || { echo "$1 names no metrics address" >&2; exit 1; }
printf '\n]\n'
