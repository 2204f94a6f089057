// Reads a chart out: the point under the pointer, or the one chosen with the arrow keys.
"use strict";
{
  const height = 300;
  const chosen = new WeakMap();
  const points = new WeakMap();

  function pointsOf(chart) {
    if (!points.has(chart)) points.set(chart, JSON.parse(chart.dataset.points));
    return points.get(chart);
  }

  function nearest(list, x) {
    let best = 0;
    for (let place = 1; place < list.length; place += 1) {
      if (Math.abs(list[place][0] - x) < Math.abs(list[best][0] - x)) best = place;
    }
    return best;
  }

  function read(chart, place) {
    const list = pointsOf(chart);
    if (!list.length) return;
    const [x, step, mean, low, high] = list[Math.max(0, Math.min(list.length - 1, place))];
    chosen.set(chart, place);
    chart.setAttribute("data-held", "");
    chart.querySelector(".cursor").setAttribute("d", "M" + x + " 0V" + height);
    chart.querySelector(".readout").textContent = "step " + step + " · " + mean + (low === high ? "" : "  (" + low + " to " + high + ")");
  }

  function rest(chart) {
    if (!chart || !chart.hasAttribute("data-held")) return;
    chart.removeAttribute("data-held");
    chart.querySelector(".cursor").setAttribute("d", "");
    chart.querySelector(".readout").textContent = chart.querySelector(".readout").dataset.newest;
  }

  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest(".plot svg");
    if (!plot) return;
    const box = plot.getBoundingClientRect(), chart = plot.closest("[data-chart]");
    read(chart, nearest(pointsOf(chart), (1000 * (event.clientX - box.left)) / box.width));
  });
  document.addEventListener("pointerout", (event) => {
    const plot = event.target.closest(".plot svg");
    if (plot && !plot.contains(event.relatedTarget)) rest(plot.closest("[data-chart]"));
  });
  document.addEventListener("keydown", (event) => {
    const chart = document.activeElement.closest("[data-chart]");
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!chart || move === undefined) return;
    event.preventDefault();
    chart.querySelector(".readout").setAttribute("aria-live", "polite");
    const last = pointsOf(chart).length - 1;
    read(chart, Math.max(0, Math.min(last, (chosen.has(chart) ? chosen.get(chart) : last) + move)));
  });
  document.addEventListener("focusout", (event) => rest(event.target.closest("[data-chart]")));
}
