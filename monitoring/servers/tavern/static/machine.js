// The machine's last hour, fetched anew as often as the Tavern takes a sample.
"use strict";
if (window.uPlot) {
  const { percent } = window.chartWords;
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  function begin(root) {
    if ("taken" in root.dataset || !root.querySelector(".plot")) return;
    root.dataset.taken = "";
    let chart = null, drawn = "", due = 0;

    function start(series) {
      const lines = series.map(({ name }, place) => window.chartLine(window.chartHues[place % window.chartHues.length], "line", name));
      const say = (values, moment) => clock.format(moment * 1000) + series.map(({ name }, place) => (values[place] === null ? "" : " · " + name + " " + percent(values[place]))).join("");
      const places = { values: (_, moments) => moments.map((moment) => clock.format(moment * 1000)), incrs: [60, 120, 300, 600, 900] };
      return window.drawChart(root.querySelector("[data-chart]"), { lines, words: percent, places, fromZero: true, say });
    }

    async function load() {
      let found;
      try {
        const answer = await fetch(root.dataset.machine);
        if (!answer.ok) return;
        found = await answer.json();
      } catch {
        return; // live.js says that the server is gone
      }
      due = Date.now() + 1000 * found.every_seconds;
      const names = found.series.map(({ name }) => name).join();
      if (!found.time.length || (drawn && drawn !== names)) return;
      chart = chart || start(found.series);
      drawn = names;
      const newest = found.series.map(({ name, percent: values }) => name + " " + (values.at(-1) === null ? "–" : percent(values.at(-1))));
      chart.show([found.time, ...found.series.map(({ percent: values }) => values)], newest.join(" · "), Math.min(found.time[0], found.time.at(-1) - 60), found.time.at(-1));
    }

    document.addEventListener("realm", () => { if (root.isConnected && Date.now() >= due) load(); });
    load();
  }

  const all = () => document.querySelectorAll("[data-machine]").forEach(begin);
  document.addEventListener("realm", all);
  all();
}
