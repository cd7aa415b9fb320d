#!/usr/bin/env bash
# Pictures of the dashboards in helm/gatefold/files/dashboards/, drawn with Grafana's components
# from npm (@grafana/ui, @grafana/data; Apache-2.0), not with Grafana, from what a real Prometheus
# scraped of a real cluster under a real load:
#   tools/dashboard-picture/draw.sh
# Ten minutes; writes docs/pictures/dashboard-NAME.png. The cluster has small KV caches, so that sequences are
# preempted, and an expert-service and an attention-service are killed on the way.
# Needs the binaries of the preset release, the ports 7470 and 7471, npm's registry, and Debian's
# nodejs, npm, chromium, fonts-inter, pngquant and prometheus (or as tests/prometheus fetches it).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
seconds=600 step=5 router=127.0.0.1:7470 prometheus=127.0.0.1:7471
bin=${GATEFOLD_BIN:-$root/build/release/bin}
for program in node npm chromium pngquant "$bin/gatefold"; do
  command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done

# The page: one bundle for all dashboards.
work=$root/build/dashboard-picture
mkdir -p "$work/public/build"
cd "$work"
cp "$root/tools/dashboard-picture/package.json" .
npm install --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error
ln -sfn ../../node_modules/@grafana/ui/dist/public/img public/build/img
NODE_PATH=$work/node_modules node_modules/.bin/esbuild "$root/tools/dashboard-picture/page.jsx" \
  --bundle --format=esm --minify --jsx=automatic --outfile=page.js --loader:.ttf=empty \
  --define:process.env.NODE_ENV='"production"' --log-level=error

# The cluster, and Prometheus beside it.
prometheus_program=$(cd "$root/tests/prometheus" &&
  python3 -Bc 'import prometheus_tools; print(prometheus_tools.require("prometheus"))')
home=$(mktemp -d "${TMPDIR:-/tmp}/gatefold-picture.XXXXXX")
pids=()
clean_up() {
  kill "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
  rm -rf "$home"
}
trap clean_up EXIT
GATEFOLD_BIN=$bin GATEFOLD_METRICS_PER_EXPERT=true GATEFOLD_VERIFY=5% GATEFOLD_KV_MEMORY=6MiB \
  GATEFOLD_MAX_RUNNING=16 GATEFOLD_MAX_WAITING=16 \
  "$root/deploy/local-cluster.sh" --model "$root/models/gatefold-tiny-moe" --port "${router#*:}" \
  --experts 3 --attention 2 --lanes 2 --threads 1 --planner --min-replicas 2 --restart \
  >"$home/cluster.log" 2>&1 &
pids+=($!)
until grep -q '^ready' "$home/cluster.log"; do
  kill -0 "${pids[0]}" || { cat "$home/cluster.log" >&2; exit 1; }
  sleep 0.1
done
mkdir "$home/targets"
cp "$root/helm/gatefold/files/alerts.yaml" "$home"
sed "s/_interval: 15s/_interval: ${step}s/" "$root/deploy/prometheus/prometheus.yml" \
  >"$home/prometheus.yml"
write_targets() {  # where everything is now: one that was killed has another port
  awk '/ pid / {last[$1] = $0} END {for (name in last) print last[name]}' "$home/cluster.log" \
    >"$home/now.log"
  "$root/deploy/prometheus/targets.sh" "$home/now.log" >"$home/targets/local.json"
}
write_targets
"$prometheus_program" --config.file="$home/prometheus.yml" --storage.tsdb.path="$home/data" \
  --web.listen-address="$prometheus" 2>"$home/prometheus.log" &
pids+=($!)

# The load: always a little of everything, and tides of more.
end=$((SECONDS + seconds))
forever() { while ((SECONDS < end)); do "$@" >/dev/null 2>&1 || true; done; }
bench() {
  ((SECONDS < end)) || return 0
  timeout "$((end - SECONDS + 1))" "$bin/gatefold" bench --router "$router" --prompt-tokens "$1" \
    --output-tokens "$2" --concurrency "$3" --requests "$4"
}
story=$(printf 'There was a girl who lived in a house by the sea, %.0s' {1..8})
told() { "$bin/gatefold" generate --router "$router" "$story and one day"; sleep 0.4; }
left() { timeout 0.3 "$bin/gatefold" generate --router "$router" "The king said"; sleep 3; }
mixed() { bench 24 60 3 6; bench 160 30 2 6; }
tides() {
  sleep 25; bench 64 100 8 40; sleep 20; bench 32 120 30 90
  sleep 20; bench 240 40 12 60; sleep 15; bench 24 20 40 160
}
for kind in told left mixed tides; do
  forever "$kind" &
  pids+=($!)
done
sleep 240
for name in expert-1 attention-1; do
  kill -KILL "$(sed -n "s/^$name pid \([0-9]*\) .*/\1/p" "$home/now.log")"
  sleep 10
  write_targets
  sleep 110
done
sleep "$((end - SECONDS))"

printf '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css">
<div id="dashboard"></div><script src="page.js" type="module"></script>' >page.html
asked="prometheus=http://$prometheus&seconds=$((seconds - step))&step=$step"
asked+="&end=$(($(date +%s) / step * step - step))"
for name in requests experts transport; do
  height=$(node -p "8 + 38 * Math.max(...require('$root/helm/gatefold/files/dashboards/$name.json')
    .panels.map(({gridPos: {y, h}}) => y + h))")
  chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
    --disable-background-networking --disable-component-update --user-data-dir="$home/browser" \
    --allow-file-access-from-files --hide-scrollbars --window-size="1400,$height" \
    --virtual-time-budget=30000 --enable-logging=stderr --screenshot="$work/$name.png" \
    "file://$work/page.html?name=$name&$asked" 2>&1 | grep CONSOLE || true
  pngquant --force --speed 1 --strip 128 "$name.png" \
    --output "$root/docs/pictures/dashboard-$name.png"
done
ls -l "$root"/docs/pictures/dashboard-*.png
