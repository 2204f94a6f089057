// What the Oracle's pages share: reads a streamed answer, tells thoughts from words, asks the server for safe HTML.
"use strict";
window.answers = {
  // Posts `body` and calls `news({thought, words, model, ended})` with all that has come, until the stream ends.
  async stream(address, body, signal, news) {
    const response = await fetch(address, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
    });
    if (!response.ok) throw new Error(await window.answers.reason(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const told = { said: "", reasoned: "", model: "", ended: "" };
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (value || "")).split("\n");
      rest = done ? "" : lines.pop();
      for (const line of lines) this.take(line, told);
      news(this.parts(told));
      if (done) break;
    }
    if (!told.ended) throw new Error("The answer broke off before its end.");
    return this.parts(told);
  },

  take(line, told) {
    if (!line.startsWith("data:") || line.slice(5).trim() === "[DONE]") return;
    const chunk = JSON.parse(line.slice(5));
    if (chunk.error) throw new Error(chunk.error.text || chunk.error.message || "The Oracle broke off.");
    told.model = chunk.model || told.model;
    const choice = (chunk.choices || [])[0];
    if (!choice) return;
    told.said += choice.delta.content || "";
    told.reasoned += choice.delta.reasoning_content || choice.delta.reasoning || "";
    told.ended = choice.finish_reason || told.ended;
  },

  // Some servers leave <think>…</think> in the text, some templates have opened it already.
  parts({ said, reasoned, model, ended }) {
    const close = said.indexOf("</think>"), opened = said.trimStart().startsWith("<think>");
    const thought = close >= 0 ? said.slice(0, close) : opened ? said : "";
    const words = close >= 0 ? said.slice(close + 8) : opened ? "" : said;
    return { thought: (reasoned + thought.replace("<think>", "")).trim(), words: words.trimStart(), model, ended };
  },

  async reason(response) {
    try {
      const { error } = await response.json();
      return error.text || error.message;
    } catch {
      return "The Tavern refused with status " + response.status + ".";
    }
  },

  async post(address, body) {
    const response = await fetch(address, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(await window.answers.reason(response));
    return response.json();
  },

  // Markdown becomes HTML on the server, which lets nothing through that could act; plain text stays if it cannot.
  async dress(elements) {
    if (!elements.length) return;
    try {
      const { html } = await this.post("/api/oracle/markdown", { texts: elements.map((element) => element.textContent) });
      elements.forEach((element, place) => { element.innerHTML = html[place]; element.classList.remove("raw"); });
    } catch {
      // the words are there, only plain
    }
  },

  // Enter asks, Shift+Enter is a new line; while letters are being composed (Chinese, Japanese) Enter chooses one.
  sendsOnEnter(field) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      field.form.requestSubmit();
    });
  },
};
