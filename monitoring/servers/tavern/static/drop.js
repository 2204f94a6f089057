// Takes files dropped anywhere on the page, or chosen in the form, and sends them one after the other: each with its own
// line that tells how many bytes are there, can be cancelled, says what was wrong, and leads to the preview afterwards.
"use strict";
{
  const veil = document.querySelector(".veil");
  const toasts = document.querySelector(".toasts");
  const form = document.querySelector("[data-drop]");
  let inside = 0, last = Promise.resolve();

  window.toast = (words, kind = "") => {
    const toast = document.createElement("li");
    toast.className = kind;
    toast.textContent = words;
    toasts.append(toast);
    if (kind) setTimeout(() => toast.remove(), kind === "bad" ? 12000 : 6000);
    return toast;
  };

  const holdsFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => { if (holdsFiles(event)) { event.preventDefault(); inside += 1; veil.hidden = false; } });
  addEventListener("dragleave", (event) => { if (holdsFiles(event) && --inside <= 0) { inside = 0; veil.hidden = true; } });
  addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    inside = 0;
    veil.hidden = true;
    sendAll([...event.dataTransfer.files]);
  });

  if (form) {
    const chooser = form.querySelector("input[type=file]");
    chooser.addEventListener("change", () => { sendAll([...chooser.files]); form.reset(); });
  }

  function sendAll(files) {
    const priority = form ? form.querySelector("select").value : "normal";
    const list = (form && form.querySelector(".uploads")) || toasts;
    for (const file of files) {
      const upload = line(list, file);
      last = last.then(() => send(file, priority, upload));
    }
  }

  // The line of one file. `cancelled` is set by its button, also before it is its turn.
  function line(list, file) {
    const upload = { element: make("li", "upload"), words: make("span", "words"), bar: make("progress"), button: make("button", "mini"), cancelled: false };
    upload.words.textContent = file.name + " waits";
    upload.words.setAttribute("aria-live", "off"); // a count of bytes is not to be read out
    upload.bar.max = 1;
    upload.bar.value = 0;
    upload.bar.setAttribute("aria-label", "Progress of " + file.name);
    upload.button.type = "button";
    upload.button.textContent = "Cancel";
    upload.button.setAttribute("aria-label", "Cancel " + file.name);
    upload.button.addEventListener("click", () => {
      upload.cancelled = true;
      if (upload.request && !upload.over) upload.request.abort();
      else upload.element.remove();
    });
    upload.element.append(upload.words, upload.button, upload.bar);
    list.append(upload.element);
    return upload;
  }

  function make(name, kind = "") {
    const element = document.createElement(name);
    element.className = kind;
    return element;
  }

  function send(file, priority, upload) {
    if (upload.cancelled) return null;
    const request = upload.request = new XMLHttpRequest();
    return new Promise((resolve) => {
      request.upload.onprogress = (event) => {
        upload.bar.value = event.total ? event.loaded / event.total : 0;
        upload.words.textContent = file.name + ": " + size(event.loaded) + " of " + size(event.total);
      };
      request.onload = () => {
        if (request.status === 201) arrived(file, upload, JSON.parse(request.responseText).accepted[0]);
        else over(upload, file.name + ": " + reason(request), "bad");
      };
      request.onerror = () => why(file, priority).then((words) => over(upload, file.name + ": " + words, "bad"));
      request.onabort = () => over(upload, file.name + ": cancelled, nothing of it was kept.", "off");
      request.onloadend = resolve;
      request.open("POST", "/api/quests?" + new URLSearchParams({ name: file.name, priority }));
      request.send(file);
    });
  }

  function arrived(file, upload, taken) {
    over(upload, file.name + " is in the inbox. ", "good");
    const link = make("a");
    link.href = "/quests/dropped?" + new URLSearchParams({ name: taken.name, priority: taken.priority });
    link.textContent = "What the hero will see";
    upload.words.append(link);
    if (upload.element.parentElement === toasts) setTimeout(() => upload.element.remove(), 15000);
  }

  // A refusal stays where it is until it is dismissed.
  function over(upload, words, kind) {
    upload.over = true;
    upload.words.setAttribute("aria-live", "polite");
    upload.element.classList.add(kind);
    upload.words.textContent = words;
    upload.bar.remove();
    upload.button.textContent = "✕";
    upload.button.setAttribute("aria-label", "Dismiss");
    if (kind === "off") setTimeout(() => upload.element.remove(), 6000);
  }

  function size(bytes) {
    for (const [bound, sign] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
      if (bytes >= bound) return (bytes / bound).toFixed(1) + " " + sign;
    }
    return bytes + " B";
  }

  // A server that refuses a large file hangs up before its answer is read; asked without the file it says why.
  async function why(file, priority) {
    try {
      const answer = await fetch("/api/quests?" + new URLSearchParams({ name: file.name, priority }), { method: "POST" });
      const told = (await answer.json()).error;
      return told.code === "empty" ? "the connection broke, nothing of it was kept." : told.text;
    } catch {
      return "the server does not answer.";
    }
  }

  function reason(request) {
    try {
      return JSON.parse(request.responseText).error.text;
    } catch {
      return "refused with status " + request.status;
    }
  }

  addEventListener("beforeunload", (event) => {
    if (document.querySelector(".upload:not(.good, .bad, .off)")) event.preventDefault();
  });
}
