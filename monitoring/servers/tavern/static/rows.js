// Brings the preview's rows into the page: the first ones at once, others by the links below them.
"use strict";
{
  const place = document.querySelector("[data-load]");
  if (place) load(place.dataset.load);

  async function load(address) {
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address + (address.includes("?") ? "&" : "?") + "bare=1", { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error((await answer.json()).error.text);
      const fresh = document.createRange().createContextualFragment(await answer.text());
      const plan = document.querySelector(".rows .plan");
      place.replaceChildren(...(plan && !fresh.querySelector(".plan") ? [plan] : []), fresh); // the lengths stay while rows change
    } catch (problem) {
      const words = document.createElement("p");
      words.className = "card reason";
      words.textContent = problem.message;
      place.replaceChildren(words);
    } finally {
      place.removeAttribute("aria-busy");
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-rows], .row-shown h3 a");
    if (!link || !place || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    load(link.getAttribute("href")).then(() => place.scrollIntoView({ block: "start" }));
  });
}
