// Takes files dropped anywhere on the page, or chosen in the form, and sends them one after the other with progress.
"use strict";
{
  const veil = document.querySelector(".veil");
  const toasts = document.querySelector(".toasts");
  const form = document.querySelector("[data-drop]");
  let inside = 0;

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

  async function sendAll(files) {
    const priority = form ? form.querySelector("select").value : "normal";
    for (const file of files) await send(file, priority);
  }

  function send(file, priority) {
    const toast = window.toast(file.name + " …");
    const bar = document.createElement("progress");
    bar.max = 1;
    toast.append(bar);
    const done = (words, kind) => { toast.remove(); window.toast(words, kind); };
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.upload.onprogress = (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; };
      request.onload = () => {
        if (request.status === 201) done(file.name + " is in the inbox.", "good");
        else done(file.name + ": " + reason(request), "bad");
      };
      request.onerror = () => done(file.name + ": the Tavern does not answer.", "bad");
      request.onloadend = resolve;
      request.open("POST", "/api/quests?" + new URLSearchParams({ name: file.name, priority }));
      request.send(file);
    });
  }

  function reason(request) {
    try {
      return JSON.parse(request.responseText).error.text;
    } catch {
      return "refused with status " + request.status;
    }
  }
}
