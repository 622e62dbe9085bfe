// State of the page, and what tables and plots share. All text goes in as text nodes: labels come from suite files.

const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const COLOURS = 8;
const SYMBOLS = ['circle', 'square', 'triangle', 'diamond', 'star', 'cross', 'wye'];
// Where each number of a summary stands; the order in which the page's data has them.
const MEAN = 0, LOW = 1, HIGH = 2, DIFFERENCE = 3, DIFFERENCE_LOW = 4, DIFFERENCE_HIGH = 5, PAIRS = 6, UNPAIRED = 7,
  IMAGES = 8, WINS = 9, TIES = 10, LOSSES = 11, FINISHED = 12;

const state = {
  scope: 0,
  metric: data.metrics[0],
  filter: '',
  sort: { column: null, descending: true },
  spread: 'difference',
  curve: 'psnr',
  example: 0,
};
const reference = data.methods[data.reference];
const level = Math.round(100 * data.level);

const colour = (method) => `var(--method-${method % COLOURS})`;
const symbol = (method) => SYMBOLS[method % SYMBOLS.length];
const scope = () => data.scopes[state.scope];
const summaries = () => scope().summaries[state.metric.key];

function shownMethods() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return d3.range(data.methods.length).filter((m) => words.every((w) => data.methods[m].toLowerCase().includes(w)));
}

function text(value, digits, sign = false) {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  const shown = size !== 0 && (size >= 1e6 || (digits > 0 && size < 0.5 * 10 ** -digits))
    ? value.toExponential(1) : value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return (sign && value > 0 ? '+' : '') + shown.replace('-', '\u2212');
}

// Times and counts span orders of magnitude: three significant digits.
function brief(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en');
  if (Math.abs(value) < 0.001) return value.toExponential(1).replace('-', '\u2212');
  return String(Number(value.toPrecision(3)));
}

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (key in made && typeof value !== 'string') made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function swatch(method) {
  const shape = d3.symbol(d3[`symbol${symbol(method)[0].toUpperCase()}${symbol(method).slice(1)}`], 70)();
  return drawn('svg', { class: 'swatch', viewBox: '-7 -7 14 14', 'aria-hidden': 'true' },
    drawn('path', { d: shape, style: `fill:${colour(method)}` }));
}

const named = (metric) => metric.title + (metric.unit ? ` (${metric.unit})` : '');

// A plain table: headings, rows of text or nodes, the first cell of a row being its heading.
function fill(table, headings, rows) {
  table.tHead.replaceChildren(element('tr', {}, ...headings.map((heading) => element('th', { scope: 'col' }, heading))));
  table.tBodies[0].replaceChildren(...rows.map((row) => element('tr', {},
    ...row.map((cell, i) => i ? element('td', {}, cell) : element('th', { scope: 'row' }, cell)))));
}
