// Embeds the page's charts and gives them, all at once, what is chosen beside them. The charts themselves are
// specifications (charts.py) that Vega-Lite draws.
"use strict";
const {specs, tables, lines, panels, colors} = JSON.parse(document.getElementById("data").textContent);
const state = {shown: lines.filter(line => line.shown).map(line => line.number), lit: null, panel: panels[0]};
const views = new Map();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const boxes = [...document.querySelectorAll("aside li")].map(item => item.querySelector("input"));

function tell(chart) {
  const view = views.get(chart);
  for (const {name} of specs[chart].params) if (name in state) view.signal(name, state[name]);
  view.runAsync();
}

function set(values) {
  Object.assign(state, values);
  views.forEach((_, chart) => tell(chart));
  document.querySelectorAll("[data-line]").forEach(item =>
    item.classList.toggle("lit", Number(item.dataset.line) === state.lit));
}

function show(numbers) {
  boxes.forEach((box, number) => { box.checked = numbers.includes(number); });
  set({shown: numbers});
}

function look() {
  const paper = getComputedStyle(document.body);
  const ink = paper.getPropertyValue("--ink"), rule = paper.getPropertyValue("--rule");
  const text = {labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500};
  return {
    background: "transparent", font: "system-ui, sans-serif", view: {stroke: null}, title: {color: ink, fontSize: 13},
    axis: {...text, gridColor: rule, domainColor: rule, tickColor: rule}, legend: text, rule: {color: ink},
  };
}

async function embed(element) {
  const name = element.dataset.chart;
  const params = specs[name].params.map(one => ({...one, value: one.name in state ? state[one.name] : one.value}));
  let source = JSON.stringify({...specs[name], params, datasets: tables});
  if (dark.matches) for (const [light, bright] of Object.entries(colors)) source = source.replaceAll(`"${light}"`, `"${bright}"`);
  const actions = {export: true, source: false, compiled: false, editor: false};
  const {view} = await vegaEmbed(element, JSON.parse(source), {config: look(), actions, renderer: "canvas", logLevel: vega.Error});
  views.set(name, view);
  view.addEventListener("mouseover", (_, item) => item?.datum?.line >= 0 && set({lit: item.datum.line}));
  view.addEventListener("mouseout", () => state.lit !== null && set({lit: null}));
}

const near = new IntersectionObserver(found => found.filter(one => one.isIntersecting).forEach(one => {
  near.unobserve(one.target);
  embed(one.target);
}), {rootMargin: "400px"});
const charts = [...document.querySelectorAll("[data-chart]")];
charts.forEach(element => near.observe(element));
dark.addEventListener("change", () => charts.filter(one => views.has(one.dataset.chart)).forEach(embed));

for (const select of document.querySelectorAll("[data-parameter]")) {
  const name = select.dataset.parameter;
  const value = Object.values(specs).flatMap(spec => spec.params).find(one => one.name === name).value;
  if (name !== "panel") { select.value = value; state[name] = value; }
  select.addEventListener("change", () =>
    set({[name]: typeof value === "number" ? Number(select.value) : select.value}));
}
const filters = [...document.querySelectorAll("[data-key]")];
filters.forEach(filter => filter.addEventListener("change", () => show(lines.filter(line =>
  filters.every(({value, dataset}) => !value || line.keys[dataset.key] === value)).map(line => line.number))));
boxes.forEach((box, number) => box.addEventListener("change", () =>
  set({shown: lines.map(line => line.number).filter(one => boxes[one].checked)})));
for (const item of document.querySelectorAll("[data-line]")) {
  item.addEventListener("mouseenter", () => set({lit: Number(item.dataset.line)}));
  item.addEventListener("mouseleave", () => set({lit: null}));
}
const choices = {best: line => line.shown, all: () => true, none: () => false};
for (const button of document.querySelectorAll("[data-show]"))
  button.addEventListener("click", () =>
    show(lines.filter(choices[button.dataset.show]).map(line => line.number)));
