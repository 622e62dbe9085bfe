// The ranking: one row for each method, sorted by a button in each heading, and the table of settings.

const whole = (value) => value === null ? '–' : Math.round(value).toLocaleString('en');
const cost = (key) => (m) => scope().costs[key][m][1];

function columns() {
  const metric = state.metric;
  const plain = (title, value, show, ascending) => ({ title, value, show, ascending });
  const list = [
    { title: 'Method', value: (m) => data.methods[m], show: (m) => method(m), ascending: true },
    plain(`Mean ${named(metric)}`, (m) => summaries()[m][MEAN], (m) => mean(m), metric.better === 'lower'),
    plain(`Difference to ${reference}`, (m) => summaries()[m][DIFFERENCE], (m) => difference(m), metric.better === 'lower'),
    plain(`${level}% interval`, (m) => summaries()[m][DIFFERENCE_LOW], (m) => interval(m), metric.better === 'lower'),
    { title: 'Interval drawn', show: (m) => whisker(m), drawing: true },
  ];
  if (metric.better) {
    list.push(plain('Pairs won', (m) => share(m), (m) => m === data.reference ? '–' : won(m)));
  }
  list.push(plain('Time (s)', cost('seconds'), (m) => brief(cost('seconds')(m)), true));
  list.push(plain('Operator calls', cost('operator'), (m) => whole(cost('operator')(m)), true));
  list.push(plain('Prior calls', cost('prior'), (m) => whole(cost('prior')(m)), true));
  list.push(plain('Steps', cost('steps'), (m) => whole(cost('steps')(m)), true));
  list.push(plain('Memory (MB)', cost('memory'), (m) => brief(cost('memory')(m)), true));
  list.push(plain('Pairs', (m) => summaries()[m][PAIRS], (m) => pairs(m)));
  list.push(plain('Finished', (m) => scope().counts[m][0], (m) => finished(m)));
  return list;
}

function method(m) {
  return element('span', {}, swatch(m), data.methods[m]);
}

function judged(m) {
  const [low, high] = [summaries()[m][DIFFERENCE_LOW], summaries()[m][DIFFERENCE_HIGH]];
  if (!state.metric.better || low === null || low * high <= 0) return '';
  return (low > 0) === (state.metric.better === 'higher') ? 'better' : 'worse';
}

function difference(m) {
  if (m === data.reference) return '–';
  return element('span', { class: judged(m) }, text(summaries()[m][DIFFERENCE], state.metric.digits, true));
}

function interval(m) {
  const row = summaries()[m];
  if (m === data.reference) return '–';
  if (row[DIFFERENCE_LOW] === null) return element('span', { class: 'small' }, 'too few images');
  return `${text(row[DIFFERENCE_LOW], state.metric.digits, true)} to ${text(row[DIFFERENCE_HIGH], state.metric.digits, true)}`;
}

function share(m) {
  const row = summaries()[m];
  return m === data.reference || !row[PAIRS] ? null : row[WINS] / row[PAIRS];
}

function won(m) {
  const part = share(m);
  return part === null ? '–' : `${Math.round(100 * part)}%`;
}

function mean(m) {
  const shown = text(summaries()[m][MEAN], state.metric.digits);
  return summaries()[m][FINISHED] < scope().units && summaries()[m][MEAN] !== null ? element('span', {}, shown, element('span', { class: 'flag' }, '\u2009†')) : shown;
}

function pairs(m) {
  const row = summaries()[m];
  return row[UNPAIRED] ? element('span', { class: 'flag' }, `${whole(row[PAIRS])} of ${whole(scope().units)}`) : whole(row[PAIRS]);
}

function finished(m) {
  const [ok, failed, skipped, missing] = scope().counts[m];
  const others = [[failed, 'failed'], [skipped, 'skipped'], [missing, 'missing']].filter(([n]) => n)
    .map(([n, name]) => `${whole(n)} ${name}`).join(', ');
  return element('span', {}, whole(ok), others ? element('span', { class: 'small' }, ` · ${others}`) : null);
}

// The intervals of all rows on one axis, so that the eye compares them; the numbers stand beside it.
function whisker(m) {
  const rows = summaries();
  const known = shownMethods().filter((i) => rows[i][DIFFERENCE] !== null);
  const ends = known.flatMap((i) => [rows[i][DIFFERENCE], rows[i][DIFFERENCE_LOW], rows[i][DIFFERENCE_HIGH]]).filter((v) => v !== null);
  const x = d3.scaleLinear(d3.extent([0, ...ends]), [6, 138]);
  const row = rows[m];
  const image = drawn('svg', { class: 'whisker', viewBox: '0 0 144 20', 'aria-hidden': 'true', preserveAspectRatio: 'none' },
    drawn('line', { x1: x(0), x2: x(0), y1: 0, y2: 20, style: 'stroke:var(--rule)' }));
  if (row[DIFFERENCE] === null || m === data.reference) return image;
  if (row[DIFFERENCE_LOW] !== null) {
    image.append(drawn('line', { x1: x(row[DIFFERENCE_LOW]), x2: x(row[DIFFERENCE_HIGH]), y1: 10, y2: 10, style: `stroke:${colour(m)};stroke-width:2.5` }));
  }
  image.append(drawn('circle', { cx: x(row[DIFFERENCE]), cy: 10, r: 3.6, style: `fill:${colour(m)}` }));
  return image;
}

function best(m) {
  const value = summaries()[m][DIFFERENCE];
  if (value === null) return null;
  return state.metric.better === 'lower' ? -value : value;
}

function sortedMethods(list) {
  const column = state.sort.column === null ? null : list[state.sort.column];
  const value = column ? column.value : best;
  const descending = column ? state.sort.descending : true;
  const order = (a, b) => {
    const [u, v] = [value(a), value(b)];
    // Rows without the number stay last, whichever way the others run.
    if (u === null || v === null) return (u === null) - (v === null);
    return descending ? d3.descending(u, v) : d3.ascending(u, v);
  };
  return shownMethods().sort(order);
}

function drawRanking() {
  const table = byId('ranking-table');
  const list = columns();
  const methods = sortedMethods(list);
  const heading = (column, i) => {
    if (column.drawing) return element('th', { scope: 'col' }, element('span', { class: 'hidden' }, column.title));
    const sorted = state.sort.column === i ? (state.sort.descending ? 'descending' : 'ascending') : 'none';
    const button = element('button', { type: 'button' }, column.title);
    button.addEventListener('click', () => sortBy(i));
    return element('th', { scope: 'col', 'aria-sort': sorted }, button);
  };
  const focused = table.tHead.contains(document.activeElement)
    ? [...table.tHead.querySelectorAll('th')].indexOf(document.activeElement.closest('th')) : -1;
  table.tHead.replaceChildren(element('tr', {}, ...list.map(heading)));
  table.tBodies[0].replaceChildren(...methods.map((m) => element('tr', { class: m === data.reference ? 'reference' : null },
    ...list.map((column, i) => i ? element('td', {}, column.show(m)) : element('th', { scope: 'row' }, column.show(m))))));
  if (focused >= 0) table.tHead.querySelectorAll('th')[focused].querySelector('button')?.focus();
  byId('ranking-caption').textContent = `${scope().label}: ${state.metric.title} over ${whole(scope().units)} measurements of `
    + `${whole(scope().images)} images, paired differences to ${reference}.`;
}

function sortBy(index) {
  const column = columns()[index];
  const again = state.sort.column === index;
  state.sort = { column: index, descending: again ? !state.sort.descending : !column.ascending };
  drawRanking();
  announce(`Sorted by ${column.title}, ${state.sort.descending ? 'descending' : 'ascending'}.`);
}

function announce(sentence) {
  byId('status').textContent = sentence;
}

// For each setting the methods in columns would not fit a phone: the best three do, and the rest is one choice away.
function drawSettings() {
  const table = byId('settings-table');
  if (!table) return;
  const { metric } = state;
  const shown = new Set(shownMethods());
  const sign = metric.better === 'lower' ? 1 : -1;
  const ahead = (place) => {
    const rows = place.summaries[metric.key];
    return d3.range(rows.length).filter((m) => shown.has(m) && rows[m][MEAN] !== null)
      .sort((a, b) => sign * (rows[a][MEAN] - rows[b][MEAN])).slice(0, 3);
  };
  const entry = (place, m) => {
    if (m === undefined) return '–';
    const row = place.summaries[metric.key][m];
    const gain = m === data.reference || row[DIFFERENCE] === null ? null : text(row[DIFFERENCE], metric.digits, true);
    const unpaired = row[UNPAIRED] ? element('span', { class: 'flag' }, ` ${whole(row[UNPAIRED])} unpaired`) : null;
    return element('span', {}, swatch(m), data.methods[m],
      element('span', { class: 'small' }, ` ${text(row[MEAN], metric.digits)}${gain ? ` (${gain})` : ''}`), unpaired);
  };
  const rows = data.scopes.slice(1).map((place, i) => {
    const link = element('button', { type: 'button', 'aria-label': `Show ${place.label}` }, place.label);
    link.addEventListener('click', () => choose({ scope: i + 1 }, `Showing ${place.label}.`));
    const order = ahead(place);
    return [link, ...[0, 1, 2].map((n) => entry(place, order[n])), whole(place.units)];
  });
  byId('settings-caption').textContent = metric.better
    ? `The three best methods of each setting by mean ${named(metric)} over what each finished, and their paired differences to ${reference}.`
    : `The three methods with the highest mean ${named(metric)} in each setting; higher is not better.`;
  fill(table, ['Setting', 'First', 'Second', 'Third', 'Measurements'], rows);
}
