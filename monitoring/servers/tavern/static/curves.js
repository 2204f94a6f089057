// The curves over steps: fetches just the range that is looked at, zooms, lays battles over each other, follows the newest.
"use strict";
if (window.uPlot) {
  const { precise, compact, tiny, whole } = window.chartWords;
  const [hues, line] = [window.chartHues, window.chartLine];
  const kinds = {
    loss: { series: "loss", dots: "validation", words: precise },
    gap: { dots: "gap", words: precise },
    gradient_norm: { series: "gradient_norm", words: precise, fromZero: true },
    tokens_per_second: { series: "tokens_per_second", words: compact, fromZero: true },
    learning_rate: { series: "learning_rate", words: tiny, fromZero: true, flat: true },
  };
  const shortest = 10, pause = 1500, share = 8;
  const places = { values: (_, steps) => steps.map(compact), incrs: [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power)) };
  const newestOf = (values) => values.findLast((value) => value !== null);
  let groups = 0;

  // The columns of one track for one kind of chart, and the lines they are drawn with.
  function columnsOf(kind, found, hue, alone) {
    const dots = kind.dots ? [[found.validation_steps, found[kind.dots]]] : [];
    if (!kind.series) return dots;
    const x = found.first.map((first, place) => Math.round((first + found.last[place]) / 2)), curve = found.series[kind.series];
    const parts = kind.flat ? [curve.mean] : alone ? [curve.smooth, curve.mean, curve.min, curve.max] : [curve.smooth, curve.mean];
    return [[x, ...parts], ...dots];
  }
  function linesOf(kind, hue, alone) {
    const own = kind.series && alone ? "verdigris" : hue;
    const dots = kind.dots ? [line(kind.series ? own : hue, kind.series && alone ? "dots" : "joined", kind.dots)] : [];
    if (!kind.series) return dots;
    const parts = kind.flat ? ["line"] : alone ? ["line", "raw", "edge", "edge"] : ["line", "raw"];
    return [...parts.map((weight) => line(hue, weight, weight)), ...dots];
  }

  function begin(root) {
    if ("taken" in root.dataset || !root.querySelector(".plot")) return;
    root.dataset.taken = "";
    const { tracks, view, span } = JSON.parse(root.dataset.curves); // span: all the steps that there are
    const alone = tracks.length === 1, group = "steps" + (groups += 1), past = [];
    const figures = [...root.querySelectorAll("[data-chart]")].filter((figure) => figure.querySelector(".plot") && kinds[figure.dataset.chart]);
    const buckets = Math.max(60, Math.min(600, Math.round(figures[0].clientWidth / 2)));
    const wanted = [...new Set(figures.map((figure) => kinds[figure.dataset.chart].series).filter(Boolean))];
    let range = view.first === null ? null : [view.first, view.last], home = span, marks = [], ask = 0, asked = 0, rest = pause, newest = null, seen = null, due = 0, charts = null;

    function address(track) {
      const query = new URLSearchParams({ buckets });
      if (figures.length < 2) query.set("series", wanted.join());
      if (track.quest !== null) query.set("quest", track.quest);
      const low = range ? Math.max(track.first ?? 0, range[0] + track.shift) : track.first;
      const high = range ? Math.min(track.last ?? Infinity, range[1] + track.shift) : track.last;
      if (low !== null) query.set("first", low);
      if (high !== null) query.set("last", high);
      if (!range && view.recent) query.set("recent", view.recent);
      return "/api/metrics?" + query;
    }

    async function load() {
      const turn = (ask += 1), steps = newest;
      asked = Date.now();
      let all;
      try {
        const answers = await Promise.all(tracks.map((track) => fetch(address(track))));
        if (answers.some((answer) => !answer.ok)) return;
        all = await Promise.all(answers.map((answer) => answer.json()));
      } catch {
        return; // live.js says that the server is gone
      }
      if (turn !== ask) return; // an older question was answered late
      seen = steps;
      all.forEach((found, place) => {
        for (const name of ["first", "last", "validation_steps"]) found[name] = found[name].map((step) => step - tracks[place].shift);
      });
      const ends = all.flatMap((found) => (found.first.length ? [found.first[0], found.last.at(-1)] : []));
      if (ends.length) span[1] = Math.max(span[1], ...ends);
      if (!range && ends.length) home = [Math.min(...ends), Math.max(...ends)];
      marks = alone ? all[0].first.filter((_, place) => place && all[0].quests[place] !== all[0].quests[place - 1]) : [];
      if (marks.length > 40) marks = [];
      rest = Math.max(pause, share * (Date.now() - asked)); // a slow Tavern is asked less often
      draw(all);
    }

    function draw(all) {
      charts = charts || figures.map(start);
      const [low, high] = range || home;
      figures.forEach((figure, place) => {
        const kind = kinds[figure.dataset.chart];
        const tables = all.flatMap((found, at) => columnsOf(kind, found, hues[at], alone));
        const ends = all.map((found) => newestOf(kind.series ? found.series[kind.series].mean : found[kind.dots]));
        const text = ends.map((value) => (value === undefined ? "–" : kind.words(value))).join(" · ");
        charts[place].show(uPlot.join(tables), text, low, Math.max(high, low + 1));
      });
      root.dataset.shown = low + "-" + high;
      root.removeAttribute("data-part"); // from here on this script keeps it fresh
    }

    function start(figure) {
      const kind = kinds[figure.dataset.chart];
      const lines = tracks.flatMap((_, place) => linesOf(kind, hues[place], alone));
      const bands = kind.series && alone && !kind.flat ? [{ series: [4, 3], fill: line("gold", "raw").stroke }] : [];
      const per = lines.length / tracks.length;
      const say = (values, step) => "step " + whole(step) + tracks.map((track, place) => {
        const own = values.slice(place * per, (place + 1) * per), told = [alone ? "" : track.name];
        const main = kind.flat || !kind.series ? own[0] : own[1];
        if (main !== null) told.push(kind.words(main));
        if (kind.series && alone && !kind.flat && own[2] !== own[3] && own[2] !== null) told.push("(" + kind.words(own[2]) + " to " + kind.words(own[3]) + ")");
        if (kind.series && kind.dots && own.at(-1) !== null) told.push("· held out " + kind.words(own.at(-1)));
        return " · " + told.filter(Boolean).join(" ");
      }).join("");
      return window.drawChart(figure, { lines, bands, words: kind.words, places, fromZero: kind.fromZero, group, say, zoom, back, marks: () => marks });
    }

    let waiting = 0;
    function zoom(low, high) {
      low = Math.max(span[0], Math.round(low));
      high = Math.min(span[1], Math.round(high));
      if (high - low < shortest) return;
      if (!waiting) past.push(range);
      range = [low, high];
      look();
    }
    function back() {
      range = past.length ? past.pop() : null;
      look();
    }
    // The picture stretches at once; the finer points come when the hand rests.
    function look() {
      const [low, high] = range || home, query = new URLSearchParams(location.search);
      charts.forEach((chart) => chart.scale(low, high));
      for (const name of ["first", "last"]) query.delete(name);
      if (range) { query.set("first", low); query.set("last", high); }
      if (location.pathname === "/live") history.replaceState(null, "", location.pathname + (query.size ? "?" + query : ""));
      root.querySelectorAll("[data-zoom=back]").forEach((button) => { button.disabled = !range && !past.length; });
      clearTimeout(waiting);
      waiting = setTimeout(() => { waiting = 0; load(); }, 150);
    }
    root.addEventListener("click", (event) => {
      const way = event.target.dataset.zoom;
      if (way === "back") back();
      else if (way && charts) charts[0].stretch(way === "in" ? .5 : 2);
    });
    function follow() {
      if (!root.isConnected || range || newest === seen) return;
      clearTimeout(due);
      const wait = asked + rest - Date.now();
      if (wait > 0) due = setTimeout(follow, wait);
      else load();
    }
    document.addEventListener("realm", ({ detail }) => { newest = detail.versions.steps; follow(); });
    load();
  }

  const all = () => document.querySelectorAll("[data-curves]").forEach(begin);
  document.addEventListener("realm", all);
  all();
}
