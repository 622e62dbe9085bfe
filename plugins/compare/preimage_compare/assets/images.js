// Images of one measurement: one display window, one zoom, one cursor for all tiles.

const view = { scale: 1, x: 0, y: 0 }; // zoom, and the pixel in the middle
const cursor = { x: null, y: null }; // the pixel pointed at
let tiles = [];
let difference_shown = false;

const example = () => data.examples[state.example];

async function drawExample() {
  if (!byId('tiles')) return;
  const current = example();
  const methods = sortedMethods(columns());
  const order = [...current.tiles.filter((tile) => tile.method === null || tile.method === undefined),
    ...methods.map((m) => current.tiles.find((tile) => tile.method === m)).filter(Boolean)];
  Object.assign(view, { scale: 1, x: current.width / 2, y: current.height / 2 });
  Object.assign(cursor, { x: null, y: null });
  byId('cursor').textContent = '';
  tiles = order.map((tile) => build(tile, current));
  byId('tiles').replaceChildren(...tiles.map((tile) => tile.figure));
  const setting = scope().setting;
  const elsewhere = setting && setting.join('\n') !== current.setting.join('\n') ? ' This is not the setting chosen above.' : '';
  byId('example-why').textContent = `${current.width} × ${current.height} pixels. Shown because: ${current.why}.${elsewhere}`;
  const loading = tiles;
  await Promise.all(tiles.map((tile) => tile.image && tile.image.decode()));
  if (loading !== tiles) return; // another measurement was chosen meanwhile
  for (const tile of tiles) tile.pixels = tile.image ? pixelsOf(tile.image) : null;
  paintDifferences();
  moveTiles();
}

function build(tile, current) {
  const known = tile.method !== null && tile.method !== undefined;
  const frame = element('div', { class: 'frame', style: `aspect-ratio:${current.width}/${current.height}` });
  const made = { tile, frame, image: null, canvas: null, pixels: null, value: element('output', { 'aria-hidden': 'true' }) };
  if (tile.source) {
    made.image = element('img', { src: tile.source, alt: `${tile.title}${tile.caption ? `, ${tile.caption}` : ''}`, draggable: 'false' });
    made.canvas = element('canvas', { width: current.width, height: current.height, role: 'img', 'aria-label': `Difference of ${tile.title} to the truth`, hidden: true });
    made.cross = element('span', { class: 'cross', hidden: true });
    frame.append(made.image, made.canvas, made.cross);
  } else {
    frame.append(element('div', { class: 'empty' }, tile.caption));
  }
  const caption = element('figcaption', {}, element('b', {}, known ? swatch(tile.method) : '', tile.title),
    tile.source ? tile.caption : '', made.value);
  made.figure = element('figure', { class: 'tile' }, frame, caption);
  return made;
}

function pixelsOf(image) {
  const canvas = element('canvas', { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}

const grey = (pixels, i) => (pixels[4 * i] + pixels[4 * i + 1] + pixels[4 * i + 2]) / 765;
const BELOW = [33, 102, 172], ABOVE = [178, 84, 0];

function paintDifferences() {
  const truth = tiles[0].pixels;
  const range = Number(byId('range').value);
  const middle = matchMedia('(prefers-color-scheme: dark)').matches ? [24, 27, 30] : [250, 249, 246];
  for (const tile of tiles) {
    if (!tile.pixels) continue;
    tile.canvas.hidden = !difference_shown || tile === tiles[0];
    tile.image.hidden = !tile.canvas.hidden;
    if (tile.canvas.hidden) continue;
    const context = tile.canvas.getContext('2d');
    const painted = context.createImageData(tile.canvas.width, tile.canvas.height);
    for (let i = 0; i < painted.data.length / 4; i += 1) {
      const error = Math.max(-1, Math.min(1, (grey(tile.pixels, i) - grey(truth, i)) / range));
      const end = error < 0 ? BELOW : ABOVE;
      for (let c = 0; c < 3; c += 1) painted.data[4 * i + c] = middle[c] + Math.abs(error) * (end[c] - middle[c]);
      painted.data[4 * i + 3] = 255;
    }
    context.putImageData(painted, 0, 0);
  }
  byId('range-label').hidden = !difference_shown;
  const legend = byId('legend');
  legend.hidden = !difference_shown;
  const rgb = (c) => `rgb(${c.join(' ')})`;
  legend.replaceChildren(element('i', { style: `background:linear-gradient(90deg, ${rgb(BELOW)}, ${rgb(middle)}, ${rgb(ABOVE)})` }),
    element('span', {}, element('span', {}, `\u2212${range} (too dark)`), element('span', {}, '0'), element('span', {}, `+${range} (too bright)`)));
}

function clampView() {
  const { width: w, height: h } = example();
  view.scale = Math.max(1, Math.min(view.scale, 32));
  const [halfX, halfY] = [w / view.scale / 2, h / view.scale / 2];
  view.x = Math.max(halfX, Math.min(w - halfX, view.x));
  view.y = Math.max(halfY, Math.min(h - halfY, view.y));
}

function moveTiles() {
  if (!tiles.length) return;
  clampView();
  const { width: w, height: h } = example();
  const [left, top] = [view.x - w / view.scale / 2, view.y - h / view.scale / 2];
  for (const tile of tiles) {
    if (!tile.image) continue;
    const size = tile.frame.clientWidth / w;
    const transform = `translate(${-left * size * view.scale}px, ${-top * size * view.scale}px) scale(${view.scale})`;
    tile.image.style.transform = transform;
    tile.canvas.style.transform = transform;
    tile.frame.classList.toggle('zoomed', view.scale > 1);
    const inside = cursor.x !== null;
    tile.cross.hidden = !inside;
    tile.value.textContent = '';
    if (!inside) continue;
    tile.cross.style.left = `${(cursor.x + 0.5 - left) * size * view.scale}px`;
    tile.cross.style.top = `${(cursor.y + 0.5 - top) * size * view.scale}px`;
    if (tile.pixels) tile.value.textContent = reading(tile);
  }
}

function reading(tile) {
  const i = cursor.y * example().width + cursor.x;
  const value = grey(tile.pixels, i);
  const off = tile === tiles[0] || !tiles[0].pixels ? '' : ` (${text(value - grey(tiles[0].pixels, i), 3, true)})`;
  return `${value.toFixed(3)}${off}`;
}

function zoom(factor, x = view.x, y = view.y) {
  const before = view.scale;
  view.scale = Math.max(1, Math.min(32, view.scale * factor));
  const kept = before / view.scale; // so that the pixel (x, y) stays where it is
  view.x = x + (view.x - x) * kept;
  view.y = y + (view.y - y) * kept;
  moveTiles();
}

function pixelAt(event) {
  const frame = event.target.closest('.frame');
  if (!frame) return null;
  const box = frame.getBoundingClientRect();
  const { width: w, height: h } = example();
  const x = view.x + ((event.clientX - box.left) / box.width - 0.5) * w / view.scale;
  const y = view.y + ((event.clientY - box.top) / box.height - 0.5) * h / view.scale;
  return { x, y, unit: w / view.scale / box.width };
}

function pointAt(x, y) {
  const { width: w, height: h } = example();
  cursor.x = Math.max(0, Math.min(w - 1, Math.floor(x)));
  cursor.y = Math.max(0, Math.min(h - 1, Math.floor(y)));
}

function startImages() {
  const area = byId('tiles');
  if (!area) return;
  const pointers = new Map();
  area.addEventListener('pointerdown', (event) => {
    if (!event.target.closest('.frame')) return;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  for (const name of ['pointerup', 'pointercancel', 'pointerleave']) {
    area.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  area.addEventListener('pointermove', (event) => {
    const at = pixelAt(event);
    const held = pointers.get(event.pointerId);
    if (held && at) {
      const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      if (others.length === 1) {
        const gap = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
        zoom(gap({ x: event.clientX, y: event.clientY }, others[0]) / Math.max(1, gap(held, others[0])), at.x, at.y);
      } else if (!others.length && view.scale > 1) {
        view.x -= (event.clientX - held.x) * at.unit;
        view.y -= (event.clientY - held.y) * at.unit;
      }
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    }
    if (at) pointAt(at.x, at.y); else cursor.x = null;
    moveTiles();
  });
  area.addEventListener('pointerleave', () => { cursor.x = null; moveTiles(); });
  area.addEventListener('dblclick', (event) => {
    const at = pixelAt(event);
    if (at) zoom(2, at.x, at.y);
  });
  area.addEventListener('wheel', (event) => {
    const at = pixelAt(event);
    if (!event.ctrlKey || !at) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), at.x, at.y);
  }, { passive: false });
  area.addEventListener('keydown', (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === '+' || event.key === '=') zoom(1.5);
    else if (event.key === '-') zoom(1 / 1.5);
    else if (event.key === '0') resetZoom();
    else if (event.key in moves) {
      const [dx, dy] = moves[event.key].map((d) => d * (event.shiftKey ? 10 : 1));
      const from = cursor.x === null ? { x: Math.floor(view.x), y: Math.floor(view.y) } : cursor;
      pointAt(from.x + dx, from.y + dy);
      follow();
      moveTiles();
      const readings = tiles.filter((tile) => tile.pixels).map((tile) => `${tile.tile.title} ${reading(tile)}`);
      byId('cursor').textContent = `Column ${cursor.x}, row ${cursor.y}: ${readings.join('; ')}`;
    } else return;
    event.preventDefault();
  });
  byId('zoom-in').addEventListener('click', () => zoom(1.5));
  byId('zoom-out').addEventListener('click', () => zoom(1 / 1.5));
  byId('zoom-reset').addEventListener('click', resetZoom);
  byId('range').addEventListener('change', paintDifferences);
  for (const radio of document.querySelectorAll('input[name=tiles]')) {
    radio.addEventListener('change', () => { difference_shown = radio.value === 'difference' && radio.checked; paintDifferences(); });
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paintDifferences);
}

function follow() {
  const { width: w, height: h } = example();
  const [halfX, halfY] = [w / view.scale / 2, h / view.scale / 2];
  view.x = Math.max(cursor.x + 1 - halfX, Math.min(cursor.x + halfX, view.x));
  view.y = Math.max(cursor.y + 1 - halfY, Math.min(cursor.y + halfY, view.y));
}

function resetZoom() {
  Object.assign(view, { scale: 1, x: example().width / 2, y: example().height / 2 });
  moveTiles();
}
