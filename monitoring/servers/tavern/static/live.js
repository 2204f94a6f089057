// Keeps a page true without reloading it: repeats the server's words, fetches parts that grew old, tells the time.
"use strict";
{
  document.documentElement.classList.add("js");
  const page = document.body.dataset;
  if (page.after !== undefined) start();

  function start() {
    const loading = new Set();
    const reachable = "a, button, summary, [tabindex]";
    const silence = 40000; // the Tavern tells the time every 15 seconds
    let stream = null, newest = null, heard = 0, ahead = 0; // ahead: seconds of the Tavern's clock before ours

    function connect() {
      if (stream || document.hidden) return;
      heard = Date.now();
      stream = new EventSource("/api/events?after=" + page.after);
      for (const [kind, act] of Object.entries({ now: show, event: tell, clock: set })) {
        stream.addEventListener(kind, (message) => { heard = Date.now(); act(JSON.parse(message.data)); });
      }
      stream.onopen = () => offline(false);
      stream.onerror = () => {
        offline(true);
        if (stream && stream.readyState === EventSource.CLOSED) { disconnect(); setTimeout(connect, 3000); ask(); }
      };
    }

    // The browser does not say why a stream was refused. Where the token is no longer right, the page asks for it.
    async function ask() {
      try {
        checked(await fetch("/api/hero"));
      } catch {
        // gone for now
      }
    }

    function checked(answer) {
      if (answer.status === 401) location.reload();
      return answer.ok;
    }

    function set({ time, newest }) {
      ahead = time - Date.now() / 1000;
      if (newest < Number(page.after)) location.reload(); // the ledger is another one, as after a restore
    }

    function disconnect() {
      if (stream) stream.close();
      stream = null;
    }

    function offline(is) {
      document.querySelector(".offline").hidden = !is;
      document.documentElement.classList.toggle("lost", is);
    }

    function show(now) {
      if (now.versions.tavern !== page.build) { location.reload(); return; } // the Tavern was updated
      newest = now;
      const root = document.documentElement.dataset;
      const text = root.tongue === "plain" ? { ...now.text, ...now.plain } : now.text;
      root.state = now.state;
      if (location.pathname === "/") document.title = text.title;
      for (const element of document.querySelectorAll("[data-bind]")) {
        const words = text[element.dataset.bind];
        if (words !== undefined && element.textContent !== words) element.textContent = element.dataset.is = words;
      }
      for (const element of document.querySelectorAll("[data-value]")) {
        if (element.dataset.value in now.value) element.value = now.value[element.dataset.value];
      }
      renew();
      document.dispatchEvent(new CustomEvent("realm", { detail: now }));
    }

    function renew() {
      for (const part of document.querySelectorAll("[data-part]")) {
        const key = newest.versions[part.dataset.key];
        if (key !== undefined && key !== part.dataset.seen) refresh(part);
      }
    }

    // For a page's own script: `name` has changed by what was just done.
    window.renew = (name) => {
      for (const part of document.querySelectorAll(`[data-part^="/parts/${name}"]`)) {
        loading.delete(part.dataset.part);
        refresh(part);
      }
    };

    async function refresh(part) {
      const address = part.dataset.part;
      if (loading.has(address)) return;
      loading.add(address);
      try {
        const answer = await fetch(address);
        if (!checked(answer)) return;
        const fresh = document.createRange().createContextualFragment(await answer.text()).firstElementChild;
        if (part.querySelector("[data-held]")) return; // taken into a hand meanwhile
        for (const open of part.querySelectorAll("details[open][id]")) {
          const same = fresh.querySelector("#" + CSS.escape(open.id));
          if (same) same.open = true;
        }
        for (const chosen of [...part.querySelectorAll("select[id]")].filter((one) => !one.form?.dataset.act)) {
          const same = fresh.querySelector("#" + CSS.escape(chosen.id)), has = same && [...same.options].some((option) => option.value === chosen.value);
          if (has && !chosen.selectedOptions[0].defaultSelected) same.value = chosen.value;
        }
        const place = [...part.querySelectorAll(reachable)].indexOf(document.activeElement);
        const named = part.contains(document.activeElement) && document.activeElement.id;
        part.replaceWith(fresh);
        const same = named && fresh.querySelector("#" + CSS.escape(named));
        if (same) same.focus();
        else if (place >= 0 && fresh.querySelectorAll(reachable)[place]) fresh.querySelectorAll(reachable)[place].focus();
      } catch {
        // the stream notices that the server is gone, and says so
      } finally {
        setTimeout(() => { loading.delete(address); if (stream) renew(); }, 1500); // a part is fetched this often at most
      }
    }

    function tell(event) {
      if (event.id <= Number(page.after)) return;
      page.after = event.id;
      const log = document.querySelector("[data-log]");
      if (!log) return;
      log.querySelectorAll(".empty").forEach((element) => element.remove());
      const line = document.createElement("li"), text = document.createElement("p"), small = document.createElement("small");
      line.className = event.level + " fresh";
      text.textContent = event.text;
      const time = document.createElement("time");
      time.dataset.ago = event.time;
      time.dateTime = time.title = new Date(event.time * 1000).toISOString();
      time.textContent = ago(event.time);
      small.append(time, " · " + event.service);
      line.append(text, small);
      log.prepend(line);
      while (log.children.length > 60) log.lastElementChild.remove();
    }

    function ago(moment) {
      const passed = Date.now() / 1000 + ahead - moment;
      for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
        if (passed >= unit) return Math.floor(passed / unit) + " " + name + " ago";
      }
      return passed < 5 ? "just now" : Math.floor(passed) + " s ago";
    }

    // A hidden page holds no connection: a browser has only six for one server.
    document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
    addEventListener("pagehide", disconnect);
    addEventListener("pageshow", connect);
    setInterval(() => {
      const patience = stream && stream.readyState === EventSource.OPEN ? silence : 10000;
      if (stream && Date.now() - heard > patience) { disconnect(); connect(); } // a connection that a sleep has killed
      for (const time of document.querySelectorAll("[data-ago]")) {
        const words = ago(Number(time.dataset.ago));
        if (time.textContent !== words) time.textContent = words;
      }
    }, 5000);

    // Buttons ask without leaving the page; what comes of it arrives by the stream.
    document.addEventListener("submit", async (event) => {
      const form = event.target;
      if (!form.dataset.quiet) return;
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        const answer = await fetch(form.dataset.quiet, { method: "POST" });
        if (!answer.ok) throw new Error((await answer.json()).error.text);
      } catch (problem) {
        window.toast(problem.message, "bad");
      } finally {
        setTimeout(() => { button.disabled = false; }, 700);
      }
    });

    connect();
  }
}
