// Controls, and drawing everything once.

function draw() {
  drawRanking();
  drawSettings();
  drawCost();
  drawSpread();
  drawCurves();
}

function choose(changes, sentence) {
  Object.assign(state, changes);
  if ('metric' in changes) state.sort = { column: null, descending: true };
  byId('scope').value = String(state.scope);
  const setting = scope().setting;
  if ('scope' in changes && setting && data.examples.length) {
    // Images of the chosen setting, if the page has some.
    const found = data.examples.findIndex((e) => e.setting.join('\n') === setting.join('\n'));
    if (found >= 0) {
      state.example = found;
      byId('example').value = String(found);
    }
  }
  draw();
  drawExample();
  announce(sentence);
}

function options(select, labels) {
  select.replaceChildren(...labels.map((label, i) => element('option', { value: String(i) }, label)));
}

function start() {
  byId('without-scripts').remove();
  document.querySelector('form.controls').hidden = false;
  options(byId('scope'), data.scopes.map((place) => place.label));
  byId('scope').addEventListener('change', (event) => choose({ scope: Number(event.target.value) }, `Showing ${data.scopes[event.target.value].label}.`));
  options(byId('metric'), data.metrics.map(named));
  byId('metric').addEventListener('change', (event) => choose({ metric: data.metrics[event.target.value] }, `Measure: ${data.metrics[event.target.value].title}.`));
  byId('filter').addEventListener('input', (event) => {
    state.filter = event.target.value;
    draw();
    drawExample();
    announce(`${shownMethods().length} of ${data.methods.length} methods shown.`);
  });
  document.querySelector('form.controls').addEventListener('submit', (event) => event.preventDefault());
  for (const name of ['spread', 'curve']) {
    for (const radio of document.querySelectorAll(`input[name=${name}]`)) {
      radio.addEventListener('change', () => { state[name] = radio.value; drawSpread(); drawCurves(); });
    }
  }
  if (byId('example')) {
    options(byId('example'), data.examples.map((e) => e.label));
    byId('example').addEventListener('change', (event) => {
      state.example = Number(event.target.value);
      drawExample();
      drawCurves();
    });
  }
  startImages();
  draw();
  drawExample();
  let known = document.documentElement.clientWidth;
  new ResizeObserver(() => {
    const now = document.documentElement.clientWidth;
    if (now === known) return; // only the height changed, by our own drawing
    known = now;
    requestAnimationFrame(() => { drawCost(); drawSpread(); drawCurves(); moveTiles(); });
  }).observe(document.documentElement);
}

if (data.metrics.length) start();
