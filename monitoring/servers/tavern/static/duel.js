// A duel: both answers stream in side by side; then the server shows the ring, takes the choice and tells who was who.
"use strict";
{
  const form = document.querySelector("[data-duel]"), ask = form.elements.prompt;
  const stop = form.querySelector("[data-stop]"), send = form.querySelector("[data-send]");
  const dials = window.answers.keepDials(form);
  let asking = null;

  const arena = () => document.querySelector("[data-arena]");

  // The ring as the server knows it.
  async function refresh(duel) {
    const response = await fetch("/parts/arena?" + new URLSearchParams({ mode: "duel", duel }));
    if (!response.ok) throw new Error("The Tavern refused with status " + response.status + ".");
    arena().replaceWith(document.createRange().createContextualFragment(await response.text()));
  }

  function settle() {
    stop.hidden = !asking;
    send.hidden = Boolean(asking);
    arena().setAttribute("aria-busy", String(Boolean(asking)));
  }

  function answer(duel, side) {
    const card = arena().querySelector(`[data-side="${side}"]`);
    return window.answers.stream(`/api/oracle/duels/${duel}/${side}`, {}, asking.signal, (news) => {
      card.querySelector(".words").textContent = news.words;
      card.querySelector(".thought").hidden = !news.thought;
      card.querySelector(".thought p").textContent = news.thought;
    });
  }

  async function begin() {
    const { first, second, ...rest } = dials();
    asking = new AbortController();
    try {
      const asked = window.answers.asked(rest, [{ role: "user", content: ask.value }]);
      const { duel } = await window.answers.post("/api/oracle/duels", { first, second, ...asked });
      history.replaceState(null, "", "/oracle?" + new URLSearchParams({ mode: "duel", duel }));
      await refresh(duel);
      settle();
      await Promise.all(["left", "right"].map((side) => answer(duel, side)));
      await refresh(duel);
      arena().querySelector("[data-judge] button")?.focus();
    } catch (problem) {
      if (problem.name !== "AbortError") window.toast(problem.message, "bad");
      asking.abort();
      if (arena().dataset.arena) await refresh(arena().dataset.arena);
    }
    asking = null;
    settle();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!asking && ask.value.trim()) begin();
  });
  document.addEventListener("submit", async (event) => {
    if (event.target.dataset.judge === undefined) return;
    event.preventDefault();
    const duel = arena().dataset.arena;
    try {
      await window.answers.post(`/api/oracle/duels/${duel}/choice`, { choice: event.submitter.value });
      await refresh(duel);
      arena().querySelector("[role=status]").focus();
    } catch (problem) {
      window.toast(problem.message, "bad");
    }
  });
  stop.addEventListener("click", () => asking?.abort());
  addEventListener("keydown", (event) => { if (event.key === "Escape") asking?.abort(); });
  window.answers.sendsOnEnter(ask);
}
