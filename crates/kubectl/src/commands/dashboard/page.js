"use strict";
// Keeps a page as the cluster is: the server sends each section that has changed, whole. One stream a tab, since a
// browser opens six connections to a server, and none while the tab is hidden.
(() => {
  const events = document.body.dataset.events;
  if (!events) return;
  const state = document.getElementById("connection");
  const news = document.getElementById("news");
  let stream;
  let announced;

  const opened = (section) => [...section.querySelectorAll("details[open][id]")].map((it) => it.id);

  // A section keeps the reader's focus, what is unfolded, and how far it is scrolled.
  const replace = (old, fresh) => {
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll("pre[id]")].map((it) => [it.id, it.scrollTop, it.scrollLeft]);
    for (const id of opened(old)) fresh.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
    old.replaceWith(fresh);
    for (const [id, top, left] of scrolled) document.getElementById(id)?.scrollTo(left, top);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  // Only what a section gives as news is read aloud, and only if it is new.
  const tell = () => {
    const text = [...document.querySelectorAll("[data-news]")].map((it) => it.dataset.news).join(" ");
    if (announced !== undefined && announced !== text) news.textContent = text;
    announced = text;
  };

  const receive = (event) => {
    const sent = new DOMParser().parseFromString(event.data, "text/html");
    for (const fresh of sent.querySelectorAll("[data-live]")) {
      const old = document.getElementById(fresh.id);
      if (old) replace(old, document.adoptNode(fresh));
    }
    tell();
  };

  const follow = () => {
    if (stream) return;
    stream = new EventSource(events);
    stream.onopen = () => { state.textContent = "live"; };
    stream.onmessage = receive;
    stream.onerror = () => {
      state.textContent = stream.readyState === EventSource.CLOSED
        ? "not live: the dashboard has ended; run its command again"
        : "not live: connecting again";
    };
  };

  const rest = () => {
    stream?.close();
    stream = undefined;
    state.textContent = "not live while hidden";
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : follow()));
  // A page that is left and comes back from the browser's memory.
  addEventListener("pagehide", rest);
  addEventListener("pageshow", () => { if (!document.hidden) follow(); });
  tell();
  if (!document.hidden) follow();
})();
