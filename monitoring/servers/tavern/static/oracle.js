// The talk with the Oracle: asks, shows the answer as it comes, stops, asks again. The talk lives in this tab's storage.
"use strict";
{
  const form = document.querySelector("[data-talk]");
  const list = document.querySelector("[data-turns]");
  const shape = document.querySelector("#turn").content;
  const ask = form.elements.prompt, stop = form.querySelector("[data-stop]"), send = form.querySelector("[data-send]");
  const dials = [...form.elements].filter((element) => element.dataset.dial !== undefined);
  const talk = JSON.parse(sessionStorage.getItem("oracle") || '{"turns":[],"dials":{}}');
  let asking = null;

  const save = () => sessionStorage.setItem("oracle", JSON.stringify(talk));
  const dial = (element) => (element.type === "checkbox" ? element.checked : element.value);
  const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 160;

  function show(turn) {
    const item = shape.querySelector(turn.role === "user" ? ".asked" : ".answered").cloneNode(true);
    item.querySelector(".words").textContent = turn.content;
    if (turn.role === "assistant") fill(item, turn);
    list.append(item);
    return item;
  }

  function fill(item, turn) {
    item.querySelector(".speaker").textContent = turn.model || "the Oracle";
    item.querySelector(".words").textContent = turn.content;
    item.querySelector(".thought").hidden = !turn.thought;
    item.querySelector(".thought p").textContent = turn.thought || "";
    const note = { length: "Cut at the greatest length.", stopped: "Stopped.", broken: turn.problem }[turn.ended] || "";
    item.querySelector(".ending").textContent = turn.judged || note;
    item.querySelector(".ending").classList.toggle("bad", turn.ended === "broken");
    item.querySelector("[data-wrong]").hidden = Boolean(turn.judged) || !turn.content;
  }

  function settle() {
    form.classList.toggle("asking", Boolean(asking));
    list.setAttribute("aria-busy", String(Boolean(asking)));
    stop.hidden = !asking;
    send.hidden = Boolean(asking);
    document.querySelector("[data-empty]").hidden = talk.turns.length > 0;
    document.querySelector("[data-anew]").hidden = !talk.turns.length;
    [...list.querySelectorAll("[data-again]")].forEach((button, place, all) => { button.hidden = asking || place < all.length - 1; });
  }

  function request() {
    const chosen = Object.fromEntries(dials.map((element) => [element.name, dial(element)]));
    const system = chosen.system.trim() ? [{ role: "system", content: chosen.system }] : [];
    const said = talk.turns.filter((turn) => turn.content).map(({ role, content }) => ({ role, content }));
    return {
      model: chosen.model, messages: [...system, ...said], stream: true, temperature: Number(chosen.temperature),
      max_tokens: Number(chosen.max_tokens), chat_template_kwargs: { enable_thinking: chosen.thinking },
    };
  }

  async function answer() {
    const body = request(), turn = { role: "assistant", content: "", thought: "", model: body.model, ended: "broken", problem: "It broke off." };
    const item = show(turn), words = item.querySelector(".words");
    words.classList.add("raw");
    talk.turns.push(turn);
    asking = new AbortController();
    settle();
    item.scrollIntoView({ block: "nearest" });
    try {
      const told = await window.answers.stream("/v1/chat/completions", body, asking.signal, (news) => {
        const follow = atEnd();
        Object.assign(turn, { content: news.words, thought: news.thought, model: news.model || turn.model });
        fill(item, { ...turn, ended: "" });
        if (follow) scrollTo(0, document.documentElement.scrollHeight);
      });
      turn.ended = told.ended;
    } catch (problem) {
      turn.ended = problem.name === "AbortError" ? "stopped" : "broken";
      turn.problem = problem.message;
    }
    asking = null;
    fill(item, turn);
    settle();
    save();
    await window.answers.dress([words]);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (asking || !ask.value.trim()) return;
    const turn = { role: "user", content: ask.value };
    talk.turns.push(turn);
    show(turn);
    form.reset;
    ask.value = "";
    answer();
  });
  stop.addEventListener("click", () => asking && asking.abort());
  addEventListener("keydown", (event) => { if (event.key === "Escape" && asking) asking.abort(); });
  addEventListener("pagehide", save);
  window.answers.sendsOnEnter(ask);

  list.addEventListener("click", (event) => {
    const item = event.target.closest("li"), turn = talk.turns[[...list.children].indexOf(item)];
    if (event.target.closest("[data-again]") && !asking) {
      talk.turns.pop();
      item.remove();
      answer();
    }
    if (event.target.closest("[data-wrong]")) {
      const better = item.querySelector(".better");
      better.hidden = !better.hidden;
      if (!better.hidden) better.elements.better.focus();
    }
    if (event.target.closest("[data-judge]")) judge(item, turn);
  });
