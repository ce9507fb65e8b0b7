"use strict";
// Charts whose axes and series are chosen with native controls, and the view of a single trial.
// Vega-Lite draws. What can be chosen, and the data, come from nodebench/report/html/data.py.
(async () => {
  if (!("DecompressionStream" in window)) return; // an old browser: the static figures remain
  const unpacked = (id) => {
    const letters = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const text = (value) => (value === null || value === undefined ? "–" : String(value));
  const OFF_LOG = Number.MIN_VALUE; // the end of an interval that includes 0, below any logarithmic axis
  const DIGITS = 5; // of a result in a trial's view; the tables next to the page have all
  const date = (seconds) => `${new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " ")} UTC`;
  const rounded = (value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(DIGITS)) : value);
  const resultText = (name, value) => text(report.times.includes(name) ? date(value) : rounded(value));

  const report = JSON.parse(await unpacked("report-data"));
  const rows = Object.fromEntries(Object.entries(report.rows).map(([name, columns]) => {
    const names = Object.keys(columns);
    const count = names.length ? columns[names[0]].length : 0;
    const one = (i) => Object.fromEntries(names.map((each) => [each, columns[each][i]]));
    return [name, Array.from({ length: count }, (_, i) => one(i))];
  }));
  rows.trials.forEach((row) => (row.trial_id = row.id));
  const trials = Object.groupBy(rows.trials, (row) => row.cell);
  if (document.getElementById("report-library"))
    document.head.append(make("script", { textContent: await unpacked("report-library") }));

  // What a row has in a column; settings are those of its configuration.
  const valueOf = (row, field) => (field in row ? row[field] : trials[row.cell]?.[0][field]);

  const CONFIG = {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, text: { color: "currentColor" },
    rule: { color: "currentColor" }, mark: { invalid: "filter" },
    axis: {
      labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor",
      tickColor: "currentColor", gridColor: "currentColor", gridOpacity: 0.12,
      labelFontSize: 12, titleFontSize: 13, labelOverlap: "greedy",
    },
    legend: { labelColor: "currentColor", titleColor: "currentColor", symbolStrokeColor: "currentColor", symbolFillColor: "currentColor", labelFontSize: 12 },
  };

  const within = (value, axis) => Math.min(axis.most ?? Infinity, Math.max(axis.least ?? -Infinity, value));

  // A little more than the values span, within what is possible.
  function domain(axis, isLog, values) {
    const [to, from] = isLog ? [Math.log, Math.exp] : [(value) => value, (value) => value];
    const [low, high] = [to(Math.min(...values)), to(Math.max(...values))];
    const margin = 0.05 * (high - low || Math.abs(high) || 1);
    return [low - margin, high + margin].map((end) => within(from(end), axis));
  }

  function channel(axis, isLog, values) {
    const type = axis.is_number ? "quantitative" : "nominal";
    const known = values.filter((value) => typeof value === "number" && (!isLog || value > OFF_LOG));
    const ends = known.length ? { domain: domain(axis, isLog, known) } : {};
    const scale = axis.is_number ? { type: isLog ? "log" : "linear", nice: false, ...ends } : { padding: 0.4 };
    const labels = { format: axis.format || undefined, labelAngle: 0, ...(isLog ? {} : { tickCount: 8 }) };
    if (axis.is_whole) labels.tickMinStep = 1;
    return { type, scale, title: axis.title, sort: null, axis: labels };
  }

  // Intervals are cut where no value can be, like those in tables.
  function point(row, choice) {
    const [x, y, half] = [valueOf(row, choice.x.field), valueOf(row, choice.y.field), row[`${choice.y.field} ±`]];
    const shown = (value) => (choice.logY ? Math.max(value, OFF_LOG) : value);
    const ends = typeof half === "number" && typeof y === "number"
      ? { low: shown(within(y - half, choice.y)), high: shown(within(y + half, choice.y)) } : {};
    return { ...row, x, y, ...ends, series: text(valueOf(row, choice.series)) };
  }

  const isKnown = (value) => value !== null && value !== undefined;
  const fits = (value, isLog) => isKnown(value) && (!isLog || value > 0);
  const isDrawn = (row, choice) => fits(row.x, choice.logX) && fits(row.y, choice.logY);
  const lacksOnlyX = (row, choice) => !isKnown(row.x) && fits(row.y, choice.logY);

  function tooltip(choice, data) {
    const has = (field) => data.some((row) => isKnown(row[field]));
    const precise = (axis) => {
      if (!axis.is_number) return undefined;
      return axis.format.endsWith("%") ? ".2%" : axis.format.endsWith("s") ? ",.0f" : ".5~g";
    };
    const known = [
      ["cell", "configuration"], ["trial_id", "trial"], ["seed", "seed"], ["way", "gradient"],
      ["method", "test solver"], ["budget", "budget"], ["n", "seeds"],
    ];
    return [
      ...known.filter(([field]) => has(field)).map(([field, title]) => ({ field, title, type: "nominal" })),
      ...(has("x") ? [{ field: "x", title: choice.x.title, format: precise(choice.x), type: choice.x.is_number ? "quantitative" : "nominal" }] : []),
      { field: "y", title: choice.y.title, format: precise(choice.y), type: choice.y.is_number ? "quantitative" : "nominal" },
      ...(has("low") ? ["low", "high"].map((field) =>
        ({ field, title: field === "low" ? "from" : "to", format: precise(choice.y), type: "quantitative" })) : []),
    ];
  }

  // The points of a choice of axes by the layers of a chart; `across` are those without an x.
  function specification(chart, choice, points) {
    const data = points.filter((row) => isDrawn(row, choice));
    const across = chart.without_x.length ? points.filter((row) => lacksOnlyX(row, choice)) : [];
    const hasIntervals = data.some((row) => row.low !== undefined);
    const layer = chart.layers.filter((each) => hasIntervals || !each.encoding.y2);
    if (across.length) layer.push(...chart.without_x.map((each) => ({ ...each, data: { values: across } })));
    const description = `${chart.title}: ${choice.y.title} over ${choice.x.title}`;
    const spec = structuredClone({ width: "container", height: 320, description, data: { values: data }, config: CONFIG, layer });
    const heights = [...data.flatMap((row) => [row.y, row.low, row.high]), ...across.map((row) => row.y)];
    const y = channel(choice.y, choice.logY, heights);
    const colors = report.colors[choice.series];
    spec.encoding = {
      x: { field: "x", ...channel(choice.x, choice.logX, data.map((row) => row.x)) },
      color: { field: "series", type: "nominal", legend: null, scale: { domain: Object.keys(colors), range: Object.values(colors) } },
    };
    for (const each of spec.layer) {
      if (each.encoding.y) Object.assign(each.encoding.y, y);
      if (each.mark.type === "point" || each.data) each.encoding.tooltip = tooltip(choice, each.data?.values ?? data);
    }
    return spec;
  }

  async function draw(place, spec, onPick) {
    const options = { mode: "vega-lite", renderer: "svg", ast: true, actions: { export: true, source: false, compiled: false, editor: false } };
    const { view } = await vegaEmbed(place, spec, options);
    view.addEventListener("click", (_event, item) => item?.datum?.cell && onPick(item.datum));
  }

  function select(label, options, onChange) {
    const box = make("select", {}, ...options.map(([value, title]) => make("option", { value, textContent: title })));
    box.addEventListener("change", onChange);
    return { box, label: make("label", {}, `${label} `, box) };
  }

  function check(label, isOn, onChange) {
    const box = make("input", { type: "checkbox", checked: isOn });
    box.addEventListener("change", onChange);
    return { box, label: make("label", {}, box, ` ${label}`) };
  }

  // A switch for each value, with buttons for all of them at once.
  function switches(title, values, colors, isOn, onChange) {
    const boxes = values.map((value) => {
      const { box, label } = check(value, isOn(value), onChange);
      if (colors[value]) box.after(make("span", { className: "swatch", style: `background: ${colors[value]}` }));
      return [value, box, label];
    });
    const all = (state) => make("button", {
      type: "button", textContent: state ? "all" : "none",
      onclick: () => (boxes.forEach(([, box]) => (box.checked = state)), onChange()),
    });
    const items = make("div", { className: "items" }, all(true), all(false), ...boxes.map(([, , label]) => label));
    return {
      element: make("fieldset", {}, make("legend", { textContent: title }), items),
      on: () => new Set(boxes.filter(([, box]) => box.checked).map(([value]) => value)),
    };
  }

  function buildChart(place, chart) {
    const by = (axes, box) => axes.find((axis) => axis.field === box.value);
    const named = (axes) => axes.map((axis) => [axis.field, axis.title]);
    const redraw = () => update();
    const [x, y] = [select("x", named(chart.x), () => reset()), select("y", named(chart.y), () => reset())];
    const series = select("colour", Object.entries(chart.series), () => (rebuild(), update()));
    const [logX, logY] = [check("log x", false, redraw), check("log y", false, redraw)];
    const single = check("each trial", false, redraw);
    const controls = make("div", { className: "controls" }, x.label, y.label, series.label, logX.label, logY.label);
    if (chart.singles) controls.append(single.label);
    if (Object.keys(chart.series).length < 2) series.label.hidden = true;
    const groups = make("div");
    const drawn = make("div", { className: "drawn" });
    const note = make("figcaption", { textContent: chart.note });
    place.append(controls, drawn, groups, note);
    let filters = [];

    function rebuild() {
      const values = (field) => [...new Set(rows[chart.rows].map((row) => text(valueOf(row, field))))];
      const isOn = (field, value) => !report.first_only.includes(field) || value === values(field)[0];
      const isShown = (value) => series.box.value !== "cell" || report.shown.includes(value) || chart.rows === "gradients";
      const colors = report.colors[series.box.value] ?? {};
      filters = [
        { field: series.box.value, ...switches(chart.series[series.box.value], values(series.box.value), colors, isShown, redraw) },
        ...Object.entries(chart.filters).filter(([field]) => field !== series.box.value && values(field).length > 1).map(([field, title]) =>
          ({ field, ...switches(title, values(field), {}, (value) => isOn(field, value), redraw) })),
      ];
      groups.replaceChildren(...filters.map((filter) => filter.element));
    }

    function reset() {
      [logX.box.checked, logY.box.checked] = [by(chart.x, x.box).is_log, by(chart.y, y.box).is_log];
      update();
    }

    function update() {
      const choice = {
        x: by(chart.x, x.box), y: by(chart.y, y.box), series: series.box.value,
        logX: logX.box.checked, logY: logY.box.checked,
      };
      const on = filters.map((filter) => [filter.field, filter.on()]);
      const isOn = (row) => on.every(([field, values]) => values.has(text(valueOf(row, field))));
      const source = single.box.checked ? chart.singles : chart.rows;
      const points = rows[source].filter(isOn).map((row) => point(row, choice));
      return draw(drawn, specification(chart, choice, points), pick);
    }

    rebuild();
    [logX.box.checked, logY.box.checked] = [chart.x[0].is_log, chart.y[0].is_log];
    return update();
  }

  // A trial: how it ended, its curve, its settings and its numbers.
  const dialog = make("dialog");
  dialog.setAttribute("aria-labelledby", "trial-title");
  document.body.append(dialog);
  const list = (row, names, shown) => make("dl", {}, ...names.filter((name) => row[name] !== null && row[name] !== "").map((name) =>
    make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: shown(name, row[name]) }))));

  function pick(row) {
    const found = rows.trials.find((trial) => trial.id === row.trial_id) ?? trials[row.cell]?.[0];
    if (found) openTrial(found);
  }

  function openTrial(trial) {
    const seeds = select("seed", trials[trial.cell].map((row) => [row.id, text(row.seed)]), () =>
      openTrial(rows.trials.find((row) => row.id === seeds.box.value)));
    seeds.box.value = trial.id;
    const close = make("button", { type: "button", textContent: "Close", onclick: () => dialog.close() });
    const curve = make("div");
    const numbers = Object.keys(trial).filter((name) => !report.settings.includes(name) && name !== "trial_id");
    dialog.replaceChildren(
      make("header", {}, make("h2", { id: "trial-title", textContent: trial.cell }), close),
      make("p", {}, seeds.label, ` trial ${trial.id}: ${trial.ending}${trial.reason ? `: ${trial.reason}` : ""}`),
      curve,
      make("h3", { textContent: "Settings" }), list(trial, report.settings.filter((name) => name in trial), (_, value) => text(value)),
      make("h3", { textContent: "Results" }), list(trial, numbers, resultText),
    );
    if (!dialog.open) dialog.showModal();
    drawCurve(curve, trial);
  }

  function drawCurve(place, trial) {
    const chart = report.charts.epochs;
    const own = rows.epochs.filter((row) => row.trial_id === trial.id);
    if (!chart || !own.length) return place.append("No epoch has been completed.");
    const known = chart.y.filter((axis) => own.some((row) => row[axis.field] !== null));
    const y = select("curve", known.map((axis) => [axis.field, axis.title]), () => update());
    const drawn = make("div", { className: "drawn" });
    place.append(make("div", { className: "controls" }, y.label), drawn);
    function update() {
      const axis = known.find((each) => each.field === y.box.value);
      const choice = { x: chart.x[0], y: axis, series: "cell", logX: false, logY: axis.is_log };
      const spec = specification(chart, choice, own.map((row) => point(row, choice)));
      spec.height = 220;
      return draw(drawn, spec, () => {});
    }
    return update();
  }

  // The ids of the table of trials open them.
  const known = new Map(rows.trials.map((row) => [row.id, row]));
  for (const cell of document.querySelectorAll("main td:first-child")) {
    const trial = known.get(cell.textContent.trim());
    if (!trial) continue;
    const button = make("button", { type: "button", textContent: trial.id, title: "Settings and curve", onclick: () => openTrial(trial) });
    cell.replaceChildren(button);
  }

  for (const place of document.querySelectorAll("figure[data-chart]")) {
    place.hidden = false;
    await buildChart(place, report.charts[place.dataset.chart]);
  }
  document.querySelectorAll("details.static").forEach((each) => (each.open = false));
  document.documentElement.dataset.charts = "drawn";
})();
