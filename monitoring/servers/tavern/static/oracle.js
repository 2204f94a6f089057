// The talk with the Oracle: asks, shows the answer as it comes, stops, asks again. The talk lives in this tab's storage.
"use strict";
{
  const form = document.querySelector("[data-talk]"), list = document.querySelector("[data-turns]");
  const shape = document.querySelector("#turn").content, ask = form.elements.prompt;
  const [stop, send, anew, empty] = ["stop", "send", "anew", "empty"].map((name) => document.querySelector(`[data-${name}]`));
  const dials = window.answers.keepDials(form);
  let turns = JSON.parse(sessionStorage.getItem("oracle.turns") || "[]");
  let asking = null;

  const save = () => sessionStorage.setItem("oracle.turns", JSON.stringify(turns));
  const wordsOf = (item) => item.querySelector(".words");

  function show(turn) {
    const item = shape.querySelector(turn.role === "user" ? ".asked" : ".answered").cloneNode(true);
    list.append(item);
    fill(item, turn);
    return item;
  }

  function fill(item, turn) {
    wordsOf(item).textContent = turn.content;
    wordsOf(item).classList.add("raw");
    if (turn.role === "user") return;
    const ending = { length: "Cut at the maximum length.", stopped: "Stopped.", broken: turn.problem }[turn.ended];
    item.querySelector(".speaker").textContent = turn.model;
    item.querySelector(".thought").hidden = !turn.thought;
    item.querySelector(".thought p").textContent = turn.thought;
    item.querySelector(".ending").textContent = turn.judged || [turn.notice, ending].filter(Boolean).join(" ");
    item.querySelector(".ending").classList.toggle("bad", turn.ended === "broken");
    item.querySelector("[data-wrong]").hidden = !turn.ended || Boolean(turn.judged) || !turn.content;
  }

  function settle() {
    list.setAttribute("aria-busy", String(Boolean(asking)));
    stop.hidden = !asking;
    send.hidden = Boolean(asking);
    anew.hidden = Boolean(asking) || !turns.length;
    empty.hidden = turns.length > 0;
    const again = [...list.querySelectorAll("[data-again]")];
    again.forEach((button) => { button.hidden = Boolean(asking) || button !== again.at(-1) || turns.at(-1).role === "user"; });
  }

  // What was said up to here; a question that nobody answered is left out, for roles must take turns.
  function said(upTo) {
    const spoken = turns.slice(0, upTo).filter((turn) => turn.content);
    return spoken.filter((turn, place) => turn.role !== spoken[place + 1]?.role).map(({ role, content }) => ({ role, content }));
  }

  async function answer() {
    const chosen = dials(), body = { model: chosen.model, stream: true, ...window.answers.asked(chosen, said()) };
    const turn = { role: "assistant", content: "", thought: "", model: chosen.model, ended: "" };
    const item = show(turn);
    turns.push(turn);
    asking = new AbortController();
    settle();
    item.scrollIntoView({ block: "nearest", behavior: "instant" });
    try {
      await window.answers.stream("/v1/chat/completions", body, asking.signal, (news) => {
        const follow = innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
        Object.assign(turn, { ...news, content: news.words, words: undefined, model: news.model || chosen.model });
        fill(item, turn);
        if (follow) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
      });
    } catch (problem) {
      turn.ended = problem.name === "AbortError" ? "stopped" : "broken";
      turn.problem = problem.message;
      document.querySelector(".oracle-state").dataset.seen = ""; // to be asked for anew
    }
    asking = null;
    fill(item, turn);
    await window.answers.dress([wordsOf(item)]);
    settle();
    save();
  }

  async function handIn(item, turn, better) {
    const messages = window.answers.asked(dials(), said(turns.indexOf(turn) + 1)).messages;
    try {
      const told = await window.answers.post("/api/oracle/thumbs", { model: turn.model, messages, better });
      turn.judged = `Handed in as ${told.name}. ${told.fate}`;
      item.querySelector(".better").hidden = true;
      item.querySelector(".ending").textContent = turn.judged;
      item.querySelector("[data-wrong]").hidden = true;
      save();
    } catch (problem) {
      window.toast(problem.message, "bad");
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (asking || !ask.value.trim()) return;
    const turn = { role: "user", content: ask.value };
    turns.push(turn);
    window.answers.dress([wordsOf(show(turn))]);
    ask.value = "";
    answer();
  });
  list.addEventListener("submit", (event) => {
    event.preventDefault();
    const item = event.target.closest("li");
    handIn(item, turns[[...list.children].indexOf(item)], event.target.elements.better.value.trim());
  });
  list.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (event.target.closest("[data-again]") && !asking) {
      turns.pop();
      item.remove();
      answer();
    } else if (event.target.closest("[data-wrong]")) {
      const better = item.querySelector(".better");
      better.hidden = !better.hidden;
      if (better.hidden) return;
      better.elements.better.focus({ preventScroll: true });
      better.scrollIntoView({ block: "nearest" });
    }
  });
  stop.addEventListener("click", () => asking?.abort());
  addEventListener("keydown", (event) => { if (event.key === "Escape") asking?.abort(); });
  addEventListener("pagehide", save);
  anew.addEventListener("click", () => { turns = []; list.replaceChildren(); save(); settle(); ask.focus(); });
  window.answers.sendsOnEnter(ask);

  list.replaceChildren();
  for (const turn of turns) {
    if (turn.role === "assistant" && !turn.ended) Object.assign(turn, { ended: "broken", problem: "The page was left while it answered." });
    show(turn);
  }
  window.answers.dress([...list.querySelectorAll(".words")]).then(() => {
    list.lastElementChild?.scrollIntoView({ block: "nearest", behavior: "instant" });
  });
  settle();
}
