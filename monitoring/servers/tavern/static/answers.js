// What the Oracle's pages share: reads a streamed answer, tells thoughts from words, asks the server for safe HTML.
"use strict";
{
  // Posts `body` and tells `news({thought, words, model, notice, ended})`, all there is so far, until the stream ends.
  async function stream(address, body, signal, news) {
    const response = await send(address, body, signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const about = (name) => response.headers.get("x-oracle-" + name) || "";
    const told = { said: "", reasoned: "", ended: "", model: about("checkpoint") || about("model"), notice: about("notice") };
    for (let rest = "", done = false; !done;) {
      const got = await reader.read();
      const lines = (rest + (got.value || "")).split("\n");
      done = got.done;
      rest = done ? "" : lines.pop();
      for (const line of lines) take(line, told);
      news(parts(told));
    }
    if (!told.ended) throw new Error("The answer broke off before its end.");
    return parts(told);
  }

  function take(line, told) {
    if (!line.startsWith("data:") || line.slice(5).trim() === "[DONE]") return;
    const chunk = understood(line.slice(5));
    if (chunk.error) throw new Error(chunk.error.text || chunk.error.message || "The Oracle broke off.");
    const choice = (chunk.choices || [])[0];
    if (!choice) return;
    const delta = choice.delta || {};
    told.said += delta.content || "";
    told.reasoned += delta.reasoning_content || delta.reasoning || "";
    told.ended = choice.finish_reason || told.ended;
  }

  function understood(text) {
    try {
      return JSON.parse(text);
    } catch {
      return { error: { text: "The answer broke off in the middle of a part." } };
    }
  }

  // Some servers leave <think>…</think> in the text, and some templates have opened it already.
  function parts({ said, reasoned, ...rest }) {
    const close = said.indexOf("</think>"), opened = said.trimStart().startsWith("<think>");
    const thought = close >= 0 ? said.slice(0, close) : opened ? said : "";
    const words = close >= 0 ? said.slice(close + 8) : opened ? "" : said;
    return { thought: (reasoned + thought.replace("<think>", "")).trim(), words: words.trimStart(), ...rest };
  }

  async function send(address, body, signal) {
    const headers = { "content-type": "application/json" };
    const response = await fetch(address, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(await reason(response));
    return response;
  }

  async function reason(response) {
    try {
      const { error } = await response.json();
      return error.text || error.message;
    } catch {
      return "The Tavern refused with status " + response.status + ".";
    }
  }

  const post = async (address, body) => (await send(address, body)).json();

  // Markdown becomes HTML on the server, which lets nothing through that could act; where it cannot, plain text stays.
  async function dress(elements) {
    const plain = elements.filter((element) => element.textContent);
    if (!plain.length) return;
    try {
      const { html } = await post("/api/oracle/markdown", { texts: plain.map((element) => element.textContent) });
      plain.forEach((element, place) => { element.innerHTML = html[place]; element.classList.remove("raw"); });
    } catch {
      // the words are there, only without their looks
    }
  }

  // Enter asks, Shift+Enter is a new line; while letters are composed (Chinese, Japanese) Enter only chooses one.
  function sendsOnEnter(field) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      field.form.requestSubmit();
    });
  }

  // Settings outlive a reload, in this tab: what was chosen comes back, what the page offers anew stays.
  function keepDials(form) {
    const dials = [...form.elements].filter((element) => element.dataset.dial !== undefined);
    const kept = JSON.parse(sessionStorage.getItem("oracle.dials") || "{}");
    const value = (element) => (element.type === "checkbox" ? element.checked : element.value);
    for (const element of dials.filter((element) => element.name in kept)) {
      if (element.type === "checkbox") element.checked = kept[element.name];
      else if (!element.options || [...element.options].some((option) => option.value === kept[element.name])) element.value = kept[element.name];
    }
    form.ownerDocument.addEventListener("change", (event) => {
      if (!dials.includes(event.target)) return;
      kept[event.target.name] = value(event.target);
      sessionStorage.setItem("oracle.dials", JSON.stringify(kept));
    });
    return () => Object.fromEntries(dials.map((element) => [element.name, value(element)]));
  }

  // The part of a request that talk and duel have in common.
  function asked(dials, turns) {
    const system = dials.system.trim() ? [{ role: "system", content: dials.system }] : [];
    return {
      messages: [...system, ...turns], temperature: Number(dials.temperature), max_tokens: Number(dials.max_tokens),
      chat_template_kwargs: { enable_thinking: dials.thinking },
    };
  }

  window.answers = { stream, post, dress, sendsOnEnter, keepDials, asked };
}
