(() => {
  "use strict";
  const all = (query, root = document) => [...root.querySelectorAll(query)];

  // Theme: as the system has it, until the button says otherwise.
  const root = document.documentElement, theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();

  // Tables: numbers before text, missing cells last in both directions, ties as they were.
  const words = new Intl.Collator("en", { numeric: true });
  const key = (row, i) => {
    const cell = row.cells[i], value = cell.dataset.v;
    return value === undefined ? cell.textContent : Number(value);
  };
  const rank = (k) => (typeof k === "string" ? 1 : Number.isNaN(k) ? 2 : 0);
  for (const table of all("table")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    if (body.rows.length < 2) continue;
    heads.forEach((head, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sign = down ? -1 : 1;
        const rows = [...body.rows].map((row) => [key(row, i), row]);
        rows.sort(([a], [b]) => {
          const p = rank(a), q = rank(b);
          if (p === 2 || q === 2) return p - q;
          if (p !== q) return sign * (p - q);
          return sign * (p ? words.compare(a, b) : a < b ? -1 : a > b ? 1 : 0);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Only what really scrolls takes the keyboard's focus.
  const watch = new ResizeObserver((entries) => {
    for (const { target: t } of entries) {
      const over = t.scrollWidth > t.clientWidth + 1 || t.scrollHeight > t.clientHeight + 1;
      if (over) t.tabIndex = 0;
      else t.removeAttribute("tabindex");
    }
  });
  for (const box of all(".scroll, .plot")) watch.observe(box);

  // Scrubbers: one frame for all places of the sliders; the last slider runs fastest.
  for (const box of all(".scrubber")) {
    const frames = all("[data-frame]", box), sliders = all("input", box), stops = [];
    const show = () => {
      const at = String(sliders.reduce((sum, s) => sum * (Number(s.max) + 1) + Number(s.value), 0));
      for (const frame of frames) frame.classList.toggle("on", frame.dataset.frame === at);
    };
    const stop = () => { for (const one of stops) one(); };
    for (const row of all(".axis", box)) {
      const slider = row.querySelector("input"), out = row.querySelector("output");
      const play = row.querySelector(".play");
      const labels = JSON.parse(slider.dataset.labels), last = labels.length - 1;
      let timer = 0;
      const move = () => {
        show();
        out.textContent = labels[slider.value];
        slider.setAttribute("aria-valuetext", labels[slider.value]);
      };
      stops.push(() => {
        clearInterval(timer);
        timer = 0;
        play.setAttribute("aria-pressed", "false");
        out.removeAttribute("aria-live");
      });
      slider.addEventListener("input", () => { stop(); move(); });
      play.addEventListener("click", () => {
        const plays = timer;
        stop();
        if (plays) return;
        if (Number(slider.value) === last) slider.value = 0;
        move();
        play.setAttribute("aria-pressed", "true");
        out.setAttribute("aria-live", "off"); // thirty labels at once are noise to a screen reader
        timer = setInterval(() => {
          slider.value = Number(slider.value) + 1;
          move();
          if (Number(slider.value) >= last) stop();
        }, 140);
      });
      move();
    }
    stop();
    box.querySelector(".still").hidden = true;
    box.querySelector(".controls").hidden = false;
  }

  // On paper nothing can be opened: open it before.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
})();
