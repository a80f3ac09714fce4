#include "frontend/dashboard.h"

namespace baton {
namespace {

constexpr char kPage[] = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Baton</title>
<style>
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --text: #1c1c1a; --soft: #6b6a66; --line: #e3e2de;
  --prefill: #2a78d6; --decode: #1f9d6b; --hybrid: #8a5bd1; --warn: #c8371b; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --card: #1f1f1d; --text: #eceae4; --soft: #9b9a94;
  --line: #33322f; --prefill: #5a9ff0; --decode: #45c08f; --hybrid: #ad87e8; --warn: #f0694f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 14px/1.45 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 24px 20px 48px; }
header { display: flex; align-items: baseline; gap: 12px; margin-bottom: 20px; }
h1 { font-size: 22px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 13px; margin: 28px 0 10px; color: var(--soft); font-weight: 600; }
#state { color: var(--soft); } #state.bad { color: var(--warn); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px 10px; }
.tile .name { color: var(--soft); font-size: 12px; }
.tile .value { font-size: 26px; font-weight: 600; font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.tile .unit { font-size: 13px; font-weight: 400; color: var(--soft); margin-left: 4px; }
.tile .more { color: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; min-height: 17px; }
.tile svg { display: block; width: 100%; height: 34px; margin-top: 6px; }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; overflow: hidden; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 8px 14px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: 12px; font-weight: 600; color: var(--soft); } tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; }
.scroll { overflow-x: auto; }
.role { display: inline-block; padding: 1px 9px; border-radius: 9px; color: #fff; font-size: 12px; background: var(--hybrid); }
.role.prefill { background: var(--prefill); } .role.decode { background: var(--decode); }
.bar { display: inline-block; width: 90px; height: 8px; border-radius: 4px; background: var(--line); overflow: hidden;
  vertical-align: middle; margin-right: 8px; } .bar i { display: block; height: 100%; background: var(--decode); }
.warn { color: var(--warn); font-weight: 600; } .none { color: var(--soft); padding: 14px; }
</style>
</head>
<body>
<main>
<header><h1>Baton</h1><span id="model"></span><span id="state">connecting…</span></header>
<div class="tiles" id="tiles"></div>
<h2>Workers</h2><div class="scroll" id="workers"></div>
<h2>Hand-off paths</h2><div class="scroll" id="paths"></div>
</main>
<script>
'use strict';
const kHistory = 90, kWindow = 10;  // samples, one a second
const samples = [];

function parse(text) {
  const series = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const le = /le="([^"]*)"/.exec(match[2] || '');
    const key = le ? match[1] + '|' + le[1] : match[1];
    series[key] = (series[key] || 0) + Number(match[3]);
    const model = /model_name="([^"]*)"/.exec(match[2] || '');
    if (model) series.model = model[1];
  }
  return series;
}
const change = (now, then, key) => (now[key] || 0) - (then ? then[key] || 0 : 0);

function quantile(now, then, name, q) {
  const prefix = name + '_bucket|', total = change(now, then, name + '_count');
  if (!total) return null;
  const bounds = Object.keys(now).filter(k => k.startsWith(prefix)).map(k => k.slice(prefix.length))
    .sort((a, b) => (a === '+Inf' ? Infinity : +a) - (b === '+Inf' ? Infinity : +b));
  let low = 0, below = 0;
  for (const bound of bounds) {
    const upTo = change(now, then, prefix + bound);
    if (upTo >= q * total) {
      if (bound === '+Inf') return low;
      return low + (+bound - low) * (q * total - below) / Math.max(upTo - below, 1);
    }
    if (bound !== '+Inf') { low = +bound; below = upTo; }
  }
  return low;
}
const digits = x => x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
const number = x => x == null || Number.isNaN(x) ? '–' : x >= 1e6 ? digits(x / 1e6) + 'M' : x >= 1e4 ? digits(x / 1e3) + 'k' :
  Number.isInteger(x) ? String(x) : digits(x);
const escape = x => String(x ?? '').replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'}[c]));

const tiles = [
  {name: 'Output', unit: 'tokens/s', of: (n, t, s) => change(n, t, 'vllm:generation_tokens_total') / s},
  {name: 'Prompts', unit: 'tokens/s', of: (n, t, s) => change(n, t, 'vllm:prompt_tokens_total') / s},
  {name: 'Time to first token', unit: 'ms', of: (n, t) => ms(quantile(n, t, 'vllm:time_to_first_token_seconds', .5)),
   more: (n, t) => 'p99 ' + number(ms(quantile(n, t, 'vllm:time_to_first_token_seconds', .99))) + ' ms'},
  {name: 'Between tokens', unit: 'ms', of: (n, t) => ms(quantile(n, t, 'vllm:inter_token_latency_seconds', .5)),
   more: (n, t) => 'p99 ' + number(ms(quantile(n, t, 'vllm:inter_token_latency_seconds', .99))) + ' ms'},
  {name: 'Running', unit: 'sequences', of: n => n['vllm:num_requests_running'],
   more: n => number(n['vllm:num_requests_waiting'] || 0) + ' waiting'},
  {name: 'Prefix cache', unit: '% hits', of: (n, t) => {
     const asked = change(n, t, 'vllm:prefix_cache_queries_total');
     return asked ? 100 * change(n, t, 'vllm:prefix_cache_hits_total') / asked : null; }},
];
function ms(seconds) { return seconds == null ? null : seconds * 1000; }

function sparkline(values) {
  const known = values.map(v => v || 0), top = Math.max(...known, 1e-9), step = 200 / (kHistory - 1);
  const start = 200 - (known.length - 1) * step;
  const points = known.map((v, i) => (start + i * step).toFixed(1) + ',' + (32 - 29 * v / top).toFixed(1)).join(' ');
  return '<svg viewBox="0 0 200 34" preserveAspectRatio="none"><polyline points="' + points +
    '" fill="none" stroke="var(--prefill)" stroke-width="1.5" vector-effect="non-scaling-stroke"/></svg>';
}
function showTiles() {
  const last = samples[samples.length - 1];
  document.getElementById('model').textContent = last.series.model || '';
  document.getElementById('tiles').innerHTML = tiles.map((tile, i) => '<div class="tile"><div class="name">' + tile.name +
    '</div><div class="value">' + number(last.values[i]) + '<span class="unit">' + tile.unit + '</span></div><div class="more">' +
    (tile.more ? tile.more(last.series, last.then) : '') + '</div>' + sparkline(samples.map(s => s.values[i])) + '</div>').join('');
}
function table(columns, rows, empty) {
  if (!rows.length) return '<div class="tile none">' + empty + '</div>';
  const head = columns.map(c => '<th class="' + (c.number ? 'number' : '') + '">' + c.name + '</th>').join('');
  return '<table><tr>' + head + '</tr>' + rows.map(row => '<tr>' + columns.map(c => '<td class="' +
    (c.number ? 'number' : '') + '">' + c.of(row) + '</td>').join('') + '</tr>').join('') + '</table>';
}
const workerColumns = [
  {name: 'Worker', of: w => escape(w.name ?? w.id)},
  {name: 'Role', of: w => '<span class="role ' + escape(w.role) + '">' + escape(w.role) + '</span>'},
  {name: 'State', of: w => w.state && w.state !== 'ready' ? '<span class="warn">' + escape(w.state) + '</span>' : 'ready'},
  {name: 'Device', of: w => escape(w.device)},
  {name: 'Running', number: 1, of: w => number(w.running)},
  {name: 'Waiting', number: 1, of: w => number(w.waiting)},
  {name: 'KV cache', of: w => w.kv_usage == null ? '–' : '<span class="bar"><i style="width:' +
    Math.min(100, 100 * w.kv_usage) + '%"></i></span>' + (100 * w.kv_usage).toFixed(0) + ' %'},
  {name: 'Tokens/s', number: 1, of: w => number(w.tokens_per_s)},
];
const pathColumns = [
  {name: 'From', of: p => escape(p.from)}, {name: 'To', of: p => escape(p.to)},
  {name: 'Transport', of: p => escape(String(p.transport).split(' ')[0])},
  {name: 'GB/s', number: 1, of: p => p.floor_gb_per_s && p.gb_per_s < p.floor_gb_per_s ?
    '<span class="warn">' + number(p.gb_per_s) + ' (expected ' + number(p.floor_gb_per_s) + ')</span>' : number(p.gb_per_s)},
  {name: 'Handed over', number: 1, of: p => p.bytes == null ? '–' : number(p.bytes / 1e6) + ' MB'},
];
async function refresh() {
  const state = document.getElementById('state');
  try {
    const [metrics, cluster, health] = await Promise.all([fetch('metrics').then(r => r.text()),
      fetch('cluster').then(r => r.json()), fetch('health')]);
    const series = parse(metrics), at = performance.now() / 1000;
    const before = samples[Math.max(0, samples.length - kWindow)];
    const then = before ? before.series : series, seconds = before ? at - before.at : 1;
    samples.push({series, at, then, values: tiles.map(tile => tile.of(series, then, seconds))});
    if (samples.length > kHistory) samples.shift();
    showTiles();
    document.getElementById('workers').innerHTML = table(workerColumns, cluster.workers || [], 'No workers are known.');
    document.getElementById('paths').innerHTML = table(pathColumns, cluster.paths || [], 'Nothing has been handed over yet.');
    state.className = health.ok ? '' : 'bad';
    state.textContent = health.ok ? 'serving' : (await health.json()).error.message;
  } catch (error) {
    state.className = 'bad';
    state.textContent = 'no answer from the server';
  }
  setTimeout(refresh, 1000);
}
refresh();
</script>
</body>
</html>
)html";

}  // namespace

std::string_view DashboardHtml() { return {kPage, sizeof(kPage) - 1}; }

}  // namespace baton
