// The page that draw.sh photographs: one dashboard of helm/gatefold/files/dashboards/, asked of a
// Prometheus and drawn with Grafana's components (@grafana/ui, @grafana/data), not with Grafana.
// What Grafana itself adds, and is written here: queries, the grid, and what a panel does if its
// JSON is silent (lines in the colours of the palette, thresholds of green and, from 80, red).
// Asked for as page.html?name=requests&prometheus=URL&seconds=...&end=...&step=..., all in seconds.
import {
  FieldConfigOptionsRegistry, ThemeContext, applyFieldOverrides, cacheFieldDisplayNames,
  createTheme, dateTime, standardTransformers, standardTransformersRegistry, toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import {BigValue, GlobalStyles, PanelChrome, TimeSeries} from '@grafana/ui';
import {TableNG} from '@grafana/ui/unstable';
import {createRoot} from 'react-dom/client';
import experts from '../../helm/gatefold/files/dashboards/experts.json';
import requests from '../../helm/gatefold/files/dashboards/requests.json';
import transport from '../../helm/gatefold/files/dashboards/transport.json';
import 'uplot/dist/uPlot.min.css';

const asked = new URLSearchParams(location.search);
const dashboard = {experts, requests, transport}[asked.get('name')];
const [seconds, end, step] = ['seconds', 'end', 'step'].map((name) => Number(asked.get(name)));
const theme = createTheme({colors: {mode: 'light'}});
const timeRange = {from: dateTime((end - seconds) * 1000), to: dateTime(end * 1000)};
timeRange.raw = timeRange;
// Some are there under two names.
standardTransformersRegistry.setInit(() => [...new Map(Object.values(standardTransformers).map(
  (one) => [one.id, {id: one.id, name: one.name, transformation: async () => one}])).values()]);

async function ask({expr, instant}) {
  const query = expr.replaceAll('$namespace', '.*').replaceAll('$release', '.*')
    .replaceAll('$__range', `${seconds}s`).replaceAll('$__rate_interval', `${4 * step}s`);
  const body = instant ? {query, time: end} : {query, start: end - seconds, end, step};
  const answer = await fetch(`${asked.get('prometheus')}/api/v1/query${instant ? '' : '_range'}`,
    {method: 'POST', body: new URLSearchParams(body)});
  const {data, error} = await answer.json();
  if (error) throw new Error(`${query}: ${error}`);
  return data.result;
}

// A column per label, as a target of the format "table" gets them.
function tableOf(series) {
  const labels = [...new Set(series.flatMap(({metric}) => Object.keys(metric)))].sort();
  return [toDataFrame({fields: [
    {name: 'Time', type: 'time', values: series.map(({value}) => value[0] * 1000)},
    ...labels.map((name) => (
      {name, type: 'string', values: series.map(({metric}) => metric[name] ?? '')})),
    {name: 'Value', type: 'number', values: series.map(({value}) => Number(value[1]))},
  ]})];
}

// A line, with gaps where there is no answer; of an instant query, its one value.
function lineOf({metric, values, value}, legend) {
  const at = new Map((values ?? [value]).map(([time, one]) => [time, one === 'NaN' ? null : one]));
  const first = values ? end - seconds : end;
  const times = Array.from({length: (end - first) / step + 1}, (_, i) => first + i * step);
  const name = legend?.replace(/{{(\w+)}}/g, (_, label) => metric[label] ?? '');
  return toDataFrame({fields: [
    {name: 'Time', type: 'time', values: times.map((time) => time * 1000)},
    {name: 'Value', type: 'number', labels: metric, config: {displayNameFromDS: name},
      values: times.map((time) => at.get(time) == null ? null : Number(at.get(time)))},
  ]});
}

// What the panel's JSON says, over what Grafana fills in.
function configure(panel, frames) {
  const given = panel.fieldConfig.defaults;
  const lines = panel.type === 'timeseries';
  const defaults = {
    thresholds: {mode: 'absolute',
      steps: [{color: 'green', value: -Infinity}, {color: 'red', value: 80}]},
    color: {mode: lines ? 'palette-classic' : 'thresholds'},
    ...given,
    custom: lines ? {lineWidth: 1, ...given.custom} : given.custom,
  };
  for (const field of frames.flatMap(({fields}) => fields)) {
    if (field.type !== 'time') field.config = {...structuredClone(defaults), ...field.config};
  }
  const {overrides} = panel.fieldConfig;
  const ids = new Set(overrides.flatMap(({properties}) => properties.map(({id}) => id)));
  const registry = new FieldConfigOptionsRegistry(() => [...ids].map((id) => (
    {id, name: id, path: id.replace(/^custom\./, ''), isCustom: id.startsWith('custom.'),
      process: (value) => value, shouldApply: () => false})));
  const configured = applyFieldOverrides({data: frames, fieldConfig: {defaults: {}, overrides}, theme,
    fieldConfigRegistry: registry, replaceVariables: (text) => text, timeZone: 'utc'});
  cacheFieldDisplayNames(configured);
  return configured;
}

async function framesOf(panel) {
  const parts = await Promise.all(panel.targets.map(async (target) => {
    const series = await ask(target);
    return target.format === 'table'
      ? tableOf(series) : series.map((one) => lineOf(one, target.legendFormat));
  }));
  const frames = await new Promise((next, error) =>
    transformDataFrame(panel.transformations ?? [], parts.flat()).subscribe({next, error}));
  return configure(panel, frames);
}

const drawings = {
  stat({panel, frames, width, height}) {
    const field = frames[0].fields.find(({type}) => type === 'number');
    return <BigValue theme={theme} width={width} height={height} graphMode="none"
      value={field.display(field.values.at(-1))} colorMode={panel.options?.colorMode ?? 'value'} />;
  },
  timeseries({frames, width, height}) {
    const legend = {showLegend: true, displayMode: 'list', placement: 'bottom', calcs: []};
    return <TimeSeries frames={frames} width={width} height={height} timeRange={timeRange}
      timeZone="utc" legend={legend} />;
  },
  table({frames, width, height}) {
    return <TableNG data={frames[0]} width={width} height={height} />;
  },
};

function Panel({panel, frames}) {
  const {x, y, w, h} = panel.gridPos;  // of 24 columns, and rows of 30 pixels and a gap of 8
  const [unit, width, height] = [(innerWidth - 8) / 24, w * (innerWidth - 8) / 24 - 8, h * 38 - 8];
  const style = {position: 'absolute', left: 8 + x * unit, top: 8 + y * 38, width, height};
  if (panel.type === 'row') {
    return <h5 style={{...style, margin: 0, lineHeight: `${height}px`}}>{panel.title}</h5>;
  }
  const Drawing = drawings[panel.type];
  const empty = !frames.some(({length}) => length > 0);
  if (empty) console.log(`no data: ${panel.title}`);
  return <div style={style}>
    <PanelChrome title={panel.title} description={panel.description || undefined}
      width={width} height={height}>
      {(width, height) => empty ? 'No data'
        : <Drawing panel={panel} frames={frames} width={width} height={height} />}
    </PanelChrome>
  </div>;
}

const frames = await Promise.all(dashboard.panels.map(
  (panel) => panel.type === 'row' ? [] : framesOf(panel)));
createRoot(document.getElementById('dashboard')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    {dashboard.panels.map((panel, i) => <Panel key={panel.id} panel={panel} frames={frames[i]} />)}
  </ThemeContext.Provider>);
