// One figure for each chart: Chart.js on a canvas, and the same numbers in a table that can be opened.
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = (value) => (value === null ? "–" : value.toLocaleString(undefined, { maximumSignificantDigits: 3 }));
const named = (title, unit) => (unit ? `${title}, ${unit}` : title);

export class Charts {
  constructor(place) {
    this.place = place;
    this.shown = new Map();
    // Its colours are those of the scheme that the chart was made in.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.forget());
  }

  forget() {
    for (const each of this.shown.values()) each.chart?.destroy();
    this.shown.clear();
    this.place.replaceChildren();
  }

  show({ at, charts }, span) {
    const titles = charts.map((chart) => chart.title).join();
    if (titles !== [...this.shown.keys()].join()) {
      this.forget();
      for (const chart of charts) this.shown.set(chart.title, this.make(chart));
    }
    const times = at.map((seconds) => seconds * 1000);
    for (const chart of charts) this.update(this.shown.get(chart.title), chart, times, span);
  }

  make({ title, unit, limit, lines }) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = named(title, unit);
    const box = document.createElement("div");
    box.className = "canvas";
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    box.append(canvas);
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = `Numbers of ${title.toLowerCase()}`;
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", summary.textContent);
    const table = document.createElement("table");
    scroll.append(table);
    details.append(summary, scroll);
    figure.append(caption, box, details);
    this.place.append(figure);
    const made = { canvas, details, table, chart: null, redraw: () => {} };
    details.addEventListener("toggle", () => made.redraw());
    // Without the library the tables still tell everything.
    if (window.Chart) made.chart = new window.Chart(canvas, this.options(lines, limit));
    else box.hidden = true;
    return made;
  }

  options(lines, limit) {
    const datasets = lines.map((line, index) => ({
      label: line.label,
      data: [],
      borderColor: style(`--chart-${index + 1}`),
      borderDash: [[], [6, 3], [2, 3]][index],
      borderWidth: 2,
      pointRadius: 0,
    }));
    if (limit !== null) {
      datasets.push({ label: `limit ${limit.toLocaleString()}`, data: [], borderColor: style("--bad"), borderWidth: 1, pointRadius: 0 });
    }
    const grid = { color: style("--line") };
    const ticks = { color: style("--quiet"), maxRotation: 0, autoSkipPadding: 16 };
    return {
      type: "line",
      data: { labels: [], datasets },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: { x: { type: "time", grid, ticks }, y: { beginAtZero: true, grid, ticks } },
        plugins: {
          legend: { labels: { color: style("--text"), boxHeight: 1, filter: ({ datasetIndex }, data) => !data.datasets[datasetIndex].hidden } },
        },
      },
    };
  }

  update(made, { title, unit, limit, lines }, times, span) {
    const last = lines.map((line) => `${line.label} ${number(line.values.at(-1) ?? null)}`).join(", ");
    made.canvas.setAttribute("aria-label", `${named(title, unit)}, over ${span}; newest: ${last}. The numbers are below.`);
    if (made.chart) {
      made.chart.data.labels = times;
      // A limit far above everything would press the lines to the ground: it is drawn once they come near it.
      const largest = Math.max(0, ...lines.flatMap((line) => line.values.map((value) => value ?? 0)));
      made.chart.data.datasets.forEach((dataset, index) => {
        dataset.data = lines[index]?.values ?? times.map(() => limit);
        dataset.hidden = index >= lines.length && largest < limit / 4;
      });
      made.chart.update();
    }
    made.redraw = () => {
      if (made.details.open) made.table.replaceChildren(...rows(lines, times));
    };
    made.redraw();
  }
}

function* rows(lines, times) {
  yield row("th", ["Time", ...lines.map((line) => line.label)]);
  for (let index = times.length - 1; index >= 0; index--) {
    yield row("td", [new Date(times[index]).toLocaleTimeString(), ...lines.map((line) => number(line.values[index]))]);
  }
}

function row(tag, cells) {
  const line = document.createElement("tr");
  for (const text of cells) {
    const cell = document.createElement(tag);
    if (tag === "th") cell.scope = "col";
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}
