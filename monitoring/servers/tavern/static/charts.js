// Draws charts with uPlot over the pictures that the server drew, and reads them out by pointer and keys.
"use strict";
{
  const hues = ["gold", "verdigris", "pale", "warm", "good"];
  const probe = document.createElement("i"); // a canvas knows no light-dark(), an element does
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = "var(--" + name + ")";
    return getComputedStyle(probe).color;
  };
  const ink = (name) => () => colour(name);
  const faint = (name, share) => () => "color-mix(in srgb, " + colour(name) + " " + share + "%, transparent)";
  const known = (value) => value !== null && value !== undefined;

  // As words.py writes numbers.
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  function precise(value) { return Math.abs(value) < 1000 ? value.toFixed(4) : value.toPrecision(3); }
  function compact(value) {
    for (const [bound, unit, sign] of [[1e12, 1e12, "T"], [1e9, 1e9, "B"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]]) {
      if (Math.abs(value) >= bound) return (value / unit).toPrecision(3).replace(/\.?0+$/, (end) => (end.startsWith(".") ? "" : end)) + " " + sign;
    }
    return Number.isInteger(value) || Math.abs(value) >= 100 ? whole.format(value) : String(Number(value.toPrecision(3)));
  }
  const tiny = (value) => (value === 0 ? "0" : value.toExponential(2).replace("e+", "e"));
  const percent = (value) => Math.round(value) + " %";
  const trimmed = (labels) => {
    while (labels.some((label) => label.includes(".")) && labels.every((label) => !label.includes(".") || /[.0]$/.test(label))) {
      labels = labels.map((label) => (label.includes(".") ? label.slice(0, -1) : label));
    }
    return labels;
  };

  window.chartWords = { precise, compact, tiny, percent, whole: (value) => whole.format(value) };

  // A line of a chart. `weight`: line, raw, edge (of a band), dots, or joined dots.
  window.chartLine = (hue, weight, label) => ({
    label,
    stroke: { line: ink(hue), raw: faint(hue, 45), edge: "transparent", dots: "transparent", joined: faint(hue, 55) }[weight],
    width: { line: 2, raw: 1, edge: 0, dots: 0, joined: 1 }[weight],
    auto: weight !== "edge",
    spanGaps: weight === "joined",
    points: { show: weight === "dots" || weight === "joined", size: 7, fill: ink(hue), stroke: ink(hue) },
  });
  window.chartHues = hues;

  // Replaces the figure's picture. `say(values, x)` tells the readout: the nearest known value of each line; `zoom(low, high)`
  // and `back()` are called by pointer and keys.
  window.drawChart = (figure, { lines, bands = [], words, places, fromZero, group, say, zoom, back, marks = () => [] }) => {
    const plot = figure.querySelector(".plot"), readout = figure.querySelector(".readout"), resting = { text: readout.textContent };
    const height = plot.querySelector("svg").clientHeight + 28;
    const font = "12px " + getComputedStyle(figure).fontFamily;
    const axis = (more) => ({ stroke: ink("soft"), font, grid: { stroke: ink("line"), width: 1 }, ticks: { show: false }, ...more });

    function nearest(u, line, from) {
      const column = u.data[line];
      for (let far = 0; far < column.length; far += 1) {
        if (known(column[from - far])) return from - far;
        if (known(column[from + far])) return from + far;
      }
      return null;
    }

    function read(u) {
      const at = u.cursor.idx;
      figure.toggleAttribute("data-held", known(at));
      if (!known(at)) { readout.textContent = resting.text; return; }
      const values = u.series.slice(1).map((_, place) => {
        const found = nearest(u, place + 1, at);
        return found === null ? null : u.data[place + 1][found];
      });
      readout.textContent = say(values, u.data[0][at]);
    }

    const u = new uPlot({
      width: plot.clientWidth, height,
      legend: { show: false },
      padding: [8, 16, 0, 0],
      scales: {
        x: { time: false },
        y: { range: (_, low, high) => (known(low) ? uPlot.rangeNum(fromZero ? 0 : low, high, { min: { pad: fromZero ? 0 : .06 }, max: { pad: .06 } }) : [0, 1]) },
      },
      axes: [
        axis({ space: 80, size: 28, ...places }),
        axis({ space: 38, size: 58, values: (_, at) => trimmed(at.map(words)) }),
      ],
      series: [{}, ...lines],
      bands,
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: Boolean(zoom), y: false, setScale: false },
        sync: group && { key: group, setSeries: false, filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
        bind: { dblclick: () => () => { if (back) back(); return null; } },
      },
      hooks: {
        setCursor: [read],
        setSelect: [(self) => {
          const { left, width } = self.select;
          if (width > 3) zoom(self.posToVal(left, "x"), self.posToVal(left + width, "x"));
          self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
        drawAxes: [(self) => {
          const { ctx, bbox } = self;
          ctx.save();
          ctx.strokeStyle = colour("edge");
          ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
          for (const x of marks()) {
            const at = Math.round(self.valToPos(x, "x", true));
            if (at > bbox.left && at < bbox.left + bbox.width) { ctx.beginPath(); ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); ctx.stroke(); }
          }
          ctx.restore();
        }],
      },
    }, [[], ...lines.map(() => [])], (self, init) => { plot.replaceChildren(self.root); plot.classList.add("drawn"); init(); });

    function put(at) { u.setCursor({ left: u.valToPos(u.data[0][at], "x"), top: 0 }); }

    figure.addEventListener("keydown", (event) => {
      const last = u.data[0].length - 1, at = known(u.cursor.idx) ? u.cursor.idx : last;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      const factor = { "+": .5, "=": .5, "-": 2 }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey || last < 0) return;
      if (to !== undefined) { readout.setAttribute("aria-live", "polite"); put(Math.max(0, Math.min(last, to))); }
      else if (factor && zoom) stretch(factor, u.data[0][at]);
      else if (event.key === "Escape" && back) back();
      else return;
      event.preventDefault();
    });
    figure.addEventListener("focusout", () => u.setCursor({ left: -10, top: -10 }));
    figure.addEventListener("wheel", (event) => {
      if (!zoom || !(event.ctrlKey || event.shiftKey || figure.contains(document.activeElement))) return; // else the page scrolls
      event.preventDefault();
      stretch((event.deltaY || event.deltaX) > 0 ? 1.25 : .8, u.posToVal(event.clientX - u.over.getBoundingClientRect().left, "x"));
    }, { passive: false });
    u.over.addEventListener("mousedown", () => figure.focus({ preventScroll: true }));

    // Makes the view longer by `factor` and keeps `x` where it is.
    function stretch(factor, x) {
      const { min, max } = u.scales.x;
      zoom(x - (x - min) * factor, x + (max - x) * factor);
    }
    new ResizeObserver(() => { if (plot.clientWidth && plot.clientWidth !== u.width) u.setSize({ width: plot.clientWidth, height }); }).observe(plot);

    const redraw = () => u.redraw(false); // in the colours of the new light
    new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);

    return {
      stretch: (factor) => stretch(factor, (u.scales.x.min + u.scales.x.max) / 2),
      scale: (min, max) => u.setScale("x", { min, max }),
      show(data, text, min, max) {
        resting.text = text;
        u.batch(() => { u.setData(data, false); u.setScale("x", { min, max }); });
        read(u);
      },
    };
  };
}
