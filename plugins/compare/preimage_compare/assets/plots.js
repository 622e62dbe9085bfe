// Plots, by Observable Plot: redrawn for each choice and width. Tables beside them have the same numbers.

const width = (id) => Math.max(280, Math.floor(byId(id).clientWidth));
const narrow = (w) => w < 560;
const short = (label, w) => narrow(w) && label.length > 15 ? `${label.slice(0, 14)}…` : label;
const style = { fontSize: '12.5px', background: 'none', overflow: 'visible' };

function place(id, plot, label) {
  // One picture with one name: a screen reader reads the table instead of a hundred unnamed marks.
  const svg = plot.tagName === 'svg' ? plot : plot.querySelector('svg');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', label);
  for (const group of svg.querySelectorAll('g[aria-label]')) group.removeAttribute('aria-label');
  byId(id).replaceChildren(plot);
}

function nothing(id, sentence) {
  byId(id).replaceChildren(element('p', { class: 'note' }, sentence));
}

// Labels beside points, moved up or down where two would cover each other. Positions in pixels.
function spreadLabels(points, height) {
  const gap = 14;
  for (const side of ['start', 'end']) {
    const group = points.filter((p) => p.anchor === side).sort((a, b) => a.py - b.py);
    for (let i = 0; i < group.length; i += 1) {
      for (let j = 0; j < i; j += 1) {
        const overlap = Math.abs(group[i].px - group[j].px) < 7 * Math.max(group[i].label.length, group[j].label.length);
        if (overlap && group[i].py - group[j].py < gap) group[i].py = group[j].py + gap;
      }
      group[i].py = Math.min(group[i].py, height - 6);
    }
  }
}

// Beyond a dozen, a name stays only where it covers neither a mark nor another name: first those on the front.
function uncovered(points, front) {
  const long = (p) => 7 * p.label.length + 8;
  const box = (p) => p.anchor === 'start' ? [p.px, p.px + long(p), p.py - 7, p.py + 7] : [p.px - long(p), p.px, p.py - 7, p.py + 7];
  const meet = ([a, b, c, d], [e, f, g, h]) => a < f && e < b && c < h && g < d;
  const marks = points.map((p) => [p.px - 5, p.px + 5, p.py + 6, p.py + 16]);
  const kept = [];
  for (const p of [...points.filter((q) => q.m === data.reference), ...[...front].reverse(), ...points]) {
    const free = !marks.some((mark, i) => points[i] !== p && meet(box(p), mark)) && !kept.some((q) => meet(box(p), box(q)));
    if (free && !kept.includes(p)) kept.push(p);
  }
  return kept;
}

// The vertical axis has paired differences: intervals of the means themselves would mostly show how images differ.
function drawCost() {
  const w = width('cost-plot');
  const height = narrow(w) ? 340 : 420;
  const margin = { left: 52, right: 16, top: 24, bottom: 42 };
  const { metric } = state;
  const points = shownMethods().map((m) => {
    const row = summaries()[m];
    const [fast, seconds, slow] = scope().costs.seconds[m];
    return { m, label: short(data.methods[m], w), seconds, fast, slow, mean: row[MEAN], gain: row[DIFFERENCE], low: row[DIFFERENCE_LOW], high: row[DIFFERENCE_HIGH] };
  }).filter((p) => p.gain !== null && p.seconds > 0);
  if (!points.length) return nothing('cost-plot', `No method shown has both a time and a result where ${reference} has one.`);
  const sign = metric.better === 'lower' ? -1 : 1;
  // An interval of very few images can be a hundred times the differences: the axis gives them room, but no more.
  const [lowest, highest] = d3.extent(points, (p) => p.gain);
  const room = Math.max((highest - lowest) * 0.5, 1e-9);
  const ends = d3.extent(points.flatMap((p) => p.low === null ? [p.gain] : [p.low, p.high]));
  const pad = Math.max((highest - lowest) * 0.1, 1e-9);
  const y = d3.scaleLinear([Math.max(ends[0], lowest - room) - pad, Math.min(ends[1], highest + room) + pad], [height - margin.bottom, margin.top]);
  const [fastest, slowest] = [d3.min(points, (p) => Math.min(p.fast, p.seconds)), d3.max(points, (p) => Math.max(p.slow, p.seconds))];
  const x = d3.scaleLog([fastest / 1.6, slowest * 1.6], [margin.left, w - margin.right]);
  for (const p of points) {
    p.px = x(p.seconds);
    p.py = y(p.gain) - 11;
    p.anchor = p.px > 0.55 * w ? 'end' : 'start';
  }
  const front = [];
  for (const p of [...points].sort((a, b) => a.seconds - b.seconds || sign * (b.gain - a.gain))) {
    if (!front.length || sign * p.gain > sign * front[front.length - 1].gain) front.push(p);
  }
  const labelled = points.length > 12 ? uncovered(points, front) : points;
  if (labelled === points) spreadLabels(points, height - margin.bottom);
  for (const p of points) p.at = y.invert(p.py);
  const [bottom, top] = y.domain();
  const clamp = (v) => Math.max(bottom, Math.min(top, v));
  const marks = [
    Plot.gridY({ stroke: 'var(--rule)', strokeOpacity: 1 }),
    Plot.ruleY([0], { stroke: 'var(--quiet)', strokeWidth: 0.75 }),
    metric.better ? Plot.line(front, { x: 'seconds', y: 'gain', curve: 'step-after', stroke: 'var(--quiet)', strokeWidth: 1, strokeDasharray: '3 3' }) : null,
    Plot.ruleX(points.filter((p) => p.low !== null), { x: 'seconds', y1: (p) => clamp(p.low), y2: (p) => clamp(p.high), stroke: (p) => colour(p.m), strokeWidth: 1.5 }),
    Plot.ruleY(points, { y: 'gain', x1: 'fast', x2: 'slow', stroke: (p) => colour(p.m), strokeWidth: 1.5 }),
    Plot.dot(points, { x: 'seconds', y: 'gain', symbol: (p) => symbol(p.m), fill: (p) => colour(p.m), stroke: 'var(--paper)', strokeWidth: 1, r: 6 }),
    ...['start', 'end'].map((anchor) => Plot.text(labelled.filter((p) => p.anchor === anchor), {
      x: 'seconds', y: 'at', text: 'label', textAnchor: anchor, dx: anchor === 'start' ? 8 : -8, fill: 'var(--ink)', stroke: 'var(--paper)', strokeWidth: 4,
    })),
    Plot.tip(points, Plot.pointer({ x: 'seconds', y: 'gain', title: (p) => `${data.methods[p.m]}\n${text(p.gain, metric.digits, true)} ${metric.unit}`
      + (p.low === null ? '' : ` (${text(p.low, metric.digits, true)} to ${text(p.high, metric.digits, true)})`)
      + `\nMean ${metric.title}: ${text(p.mean, metric.digits)}\nTime: ${brief(p.seconds)} s` })),
  ];
  const own = summaries()[data.reference][MEAN];
  const plot = Plot.plot({
    width: w, height, marginLeft: margin.left, marginRight: margin.right, marginTop: margin.top, marginBottom: margin.bottom, style,
    x: { type: 'log', domain: x.domain(), label: 'Median time in the solver (s)', labelArrow: 'none', tickFormat: brief, ticks: narrow(w) ? 4 : 7 },
    y: { domain: y.domain(), label: `${named(metric)} minus that of ${reference}, ${text(own, metric.digits)} on average${metric.better === 'lower' ? '; lower is better' : ''}`, labelArrow: 'none', ticks: 6, tickFormat: (v) => text(v, Math.max(0, d3.precisionFixed(d3.tickStep(...y.domain(), 6))), true) },
    color: { type: 'identity' }, symbol: { type: 'identity' }, marks,
  });
  return place('cost-plot', plot, `${metric.title}, as a difference to ${reference}, against time in the solver for ${points.length} methods, ${scope().label}. On the line, from the fastest: ${front.map((p) => data.methods[p.m]).join(', ')}.`);
}

function drawSpread() {
  const kind = state.spread;
  const { metric } = state;
  const of = (m) => scope().spreads[metric.key][kind][m];
  const methods = sortedMethods(columns()).filter((m) => of(m) && !(kind === 'difference' && m === data.reference));
  const table = byId('spread-table');
  const names = data.levels.map((q) => q === 0 ? 'Lowest' : q === 1 ? 'Highest' : q === 0.5 ? 'Median' : `${Math.round(100 * q)}%`);
  fill(table, ['Method', 'Measurements', ...names], methods.map((m) => [data.methods[m], whole(of(m).count), ...of(m).quantiles.map((v) => text(v, metric.digits, kind === 'difference'))]));
  byId('spread-caption').textContent = `${kind === 'difference' ? `Difference in ${metric.title} to ${reference}` : metric.title}, ${scope().label}.`;
  if (!methods.length) return nothing('spread-plot', 'No method shown has a result here.');
  const w = width('spread-plot');
  const boxes = methods.map((m) => {
    const [least, q05, q25, q50, q75, q95, most] = of(m).quantiles;
    return { m, row: m, least, q05, q25, q50, q75, q95, most };
  });
  const points = methods.flatMap((m) => {
    const spread = of(m);
    const values = spread.points || [spread.quantiles[0], spread.quantiles[6]];
    return values.map((value) => ({ m, row: m, value }));
  });
  const paint = (d) => colour(d.m);
  const ink = { stroke: paint, fill: paint };
  const longest = Math.max(...methods.map((m) => short(data.methods[m], w).length));
  const plot = Plot.plot({
    width: w, height: 62 + 34 * methods.length, marginLeft: Math.min(24 + 7 * longest, w / 2.4), marginRight: 14, marginBottom: 42, style,
    x: { label: kind === 'difference' ? `${named(metric)} minus that of ${reference}` : named(metric), labelArrow: 'none', ticks: narrow(w) ? 5 : 9, nice: true },
    y: { type: 'band', domain: methods, label: null, tickFormat: (m) => short(data.methods[m], w), tickSize: 0, padding: 0.35 },
    color: { type: 'identity' },
    marks: [
      Plot.gridX({ stroke: 'var(--rule)', strokeOpacity: 1 }),
      kind === 'difference' ? Plot.ruleX([0], { stroke: 'var(--quiet)' }) : null,
      Plot.tickX(points, { x: 'value', y: 'row', stroke: paint, strokeOpacity: points.length > 600 ? 0.15 : 0.4, insetTop: 1, insetBottom: 1 }),
      Plot.link(boxes, { x1: 'q05', x2: 'q95', y: 'row', ...ink, strokeWidth: 1.5 }),
      Plot.rect(boxes, { x1: 'q25', x2: 'q75', y: 'row', stroke: paint, strokeWidth: 1.5, fill: paint, fillOpacity: 0.22 }),
      Plot.dot(boxes, { x: 'q50', y: 'row', symbol: (d) => symbol(d.m), fill: paint, stroke: 'var(--paper)', r: 5 }),
    ],
    symbol: { type: 'identity' },
  });
  return place('spread-plot', plot, `Distribution of ${metric.title} over measurements for ${methods.length} methods, ${scope().label}; the table below has the quantiles.`);
}

function drawCurves() {
  if (!byId('curve-plot')) return;
  const example = data.examples[state.example];
  const shown = new Set(shownMethods());
  const curves = example.curves.filter((curve) => shown.has(curve.method) && curve[state.curve] && curve[state.curve].some((v) => v !== null));
  const objective = state.curve === 'objective';
  byId('curve-caption').textContent = objective
    ? `Objective of each method minus the lowest value that it reached, relative to where it began; objectives of different methods differ. ${example.label}.`
    : `PSNR of the estimate along the run, against time in the solver. ${example.label}.`;
  byId('curve-table-caption').textContent = byId('curve-caption').textContent;
  const points = curves.flatMap((curve) => {
    const values = curve[state.curve];
    const lowest = d3.min(values);
    const first = values.find((v) => v !== null);
    return values.map((v, i) => ({
      m: curve.method,
      seconds: curve.seconds[i],
      value: v === null ? null : objective ? (v - lowest) / (first - lowest || 1) : v,
    })).filter((p) => p.value !== null && p.seconds > 0 && (!objective || p.value > 0));
  });
  fill(byId('curve-table'), ['Method', 'Time (s)', 'First', 'Last'], curves.map((curve) => {
    const values = curve[state.curve].filter((v) => v !== null);
    return [data.methods[curve.method], brief(curve.seconds[curve.seconds.length - 1]), brief(values[0]), brief(values[values.length - 1])];
  }));
  if (!points.length) return nothing('curve-plot', 'No method shown has a curve for this measurement.');
  const w = width('curve-plot');
  const ends = [...d3.group(points, (p) => p.m).values()].map((group) => group[group.length - 1]);
  const height = narrow(w) ? 320 : 400;
  const right = narrow(w) ? 12 : 16 + 7 * d3.max(ends, (p) => data.methods[p.m].length);
  const plot = Plot.plot({
    width: w, height, marginLeft: 56, marginBottom: 42, marginRight: right, style,
    x: { type: 'log', label: 'Time in the solver (s)', labelArrow: 'none', tickFormat: brief, ticks: narrow(w) ? 4 : 7 },
    y: { type: objective ? 'log' : 'linear', label: objective ? 'Relative objective' : 'PSNR (dB)', labelArrow: 'none', ticks: 6, tickFormat: objective ? ((v) => v.toExponential(0).replace('-', '\u2212')) : undefined },
    color: { type: 'identity' }, symbol: { type: 'identity' },
    marks: [
      Plot.gridY({ stroke: 'var(--rule)', strokeOpacity: 1 }),
      Plot.line(points, { x: 'seconds', y: 'value', z: 'm', stroke: (p) => colour(p.m), strokeWidth: 2 }),
      Plot.dot(ends, { x: 'seconds', y: 'value', symbol: (p) => symbol(p.m), fill: (p) => colour(p.m), stroke: 'var(--paper)', r: 5.5 }),
      narrow(w) ? null : Plot.text(ends, { x: 'seconds', y: 'value', text: (p) => data.methods[p.m], textAnchor: 'start', dx: 9, fill: 'var(--ink)', stroke: 'var(--paper)', strokeWidth: 4 }),
      Plot.tip(points, Plot.pointer({ x: 'seconds', y: 'value', title: (p) => `${data.methods[p.m]}\n${brief(p.value)} after ${brief(p.seconds)} s` })),
    ],
  });
  return place('curve-plot', plot, `${objective ? 'Relative objective' : 'PSNR'} against time for ${curves.length} methods on ${example.label}; the table below has first and last values.`);
}
