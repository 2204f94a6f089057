// The board's buttons, menus and dragging: each asks the API, and the board is fetched anew at once.
"use strict";
{
  let dragged = null, mark = null;
  const lineOf = (event) => event.target.closest && event.target.closest("[data-line]");

  async function act(address, values) {
    try {
      const answer = await fetch(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values) });
      const told = await answer.json();
      if (!answer.ok) throw new Error(told.error.text);
      if (answer.status === 202) window.toast(told.text, "good");
    } catch (problem) {
      window.toast(problem.message, "bad");
    }
    window.renew("board");
  }

  function values(form) {
    const given = Object.fromEntries(new FormData(form));
    if (given.force) given.force = given.force === "true";
    return given;
  }

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.act) return;
    event.preventDefault();
    act(form.dataset.act, values(form));
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-act]");
    if (form) act(form.dataset.act, values(form));
  });

  // Dragging. The card is dropped before the one under whose middle it is let go; live.js waits while a card is held, from
  // the press of the button on: a board that came anew between press and pull would take the card out of the hand.

  document.addEventListener("pointerdown", (event) => {
    const card = event.target.closest && event.target.closest("[data-quest]");
    if (!card || event.button || event.target.closest("select, button, input")) return; // no pointerup may follow
    getSelection().removeAllRanges(); // else the selected words would be dragged, and no card
    card.dataset.held = "";
  });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => {
    for (const card of document.querySelectorAll("[data-held]")) if (card !== dragged) delete card.dataset.held;
  });

  document.addEventListener("dragstart", (event) => {
    const at = event.target.closest ? event.target : event.target.parentElement; // of selected words it is the text
    const card = at && at.closest("[data-quest]");
    if (!card) return;
    dragged = card;
    card.dataset.held = "";
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/x-quest", card.dataset.quest);
  });

  function next(line, y) {
    return [...line.querySelectorAll("[data-quest]")].find((card) => {
      const box = card.getBoundingClientRect();
      return card !== dragged && y < box.top + box.height / 2;
    });
  }

  function show(place, where) {
    if (mark) mark.classList.remove("drop-before", "drop-here");
    mark = place;
    if (mark) mark.classList.add(where);
  }

  document.addEventListener("dragover", (event) => {
    const line = dragged && lineOf(event);
    if (!line) return show(null);
    event.preventDefault();
    const before = next(line, event.clientY);
    show(before || line, before ? "drop-before" : "drop-here");
  });

  document.addEventListener("drop", (event) => {
    const line = dragged && lineOf(event);
    if (!line) return;
    event.preventDefault();
    const before = next(line, event.clientY), cards = [...line.querySelectorAll("[data-quest]")].filter((card) => card !== dragged);
    const where = { priority: line.dataset.line };
    if (before) where.before = Number(before.dataset.quest);
    else if (cards.length) where.after = Number(cards.at(-1).dataset.quest); // others may wait behind those that are shown
    line.insertBefore(dragged, before || (cards.length ? cards.at(-1).nextSibling : null));
    const quest = dragged.dataset.quest;
    release();
    act("/api/quests/" + quest + "/move", where);
  });

  function release() {
    show(null);
    if (dragged) delete dragged.dataset.held;
    dragged = null;
  }
  document.addEventListener("dragend", release);
}
