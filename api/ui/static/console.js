// Runs before the page: tells the server the reader's time zone and shade by cookie, and keeps focus where a part is drawn anew.
(() => {
  const read = (name) => document.cookie.split("; ").find((one) => one.startsWith(name + "="))?.slice(name.length + 1);
  const keep = (name, value) => {
    if (read(name) === value) return false;
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `${name}=${value}; path=/console; max-age=31536000; samesite=strict${secure}`;
    return read(name) === value;
  };
  const theme = read("lanfree_theme") || "auto";
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const shade = dark ? "dark" : "light";
  document.documentElement.dataset.shade = shade;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const changed = [keep("lanfree_zone", zone), keep("lanfree_shade", shade)];
  if (changed.includes(true)) location.reload();

  window.lanfree = {
    theme(name) {
      keep("lanfree_theme", name);
      location.reload();
    },
    download(address) {
      const link = Object.assign(document.createElement("a"), { href: address, download: "" });
      document.body.append(link);
      link.click();
      link.remove();
    },
    signIn() {
      location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
    },
  };

  // A part that is drawn anew loses the focus of what was in it: it goes back to what has the same id, data-act and data-key,
  // data-keep or address. What somebody opened, shut or scrolled in it and is named by data-keep stays so.
  const kept = (element) => `[data-keep="${CSS.escape(element.dataset.keep)}"]`;
  const named = (element) => {
    const { id, dataset, parentElement, tagName } = element;
    if (id) return `#${CSS.escape(id)}`;
    if (dataset.act) return `[data-act="${dataset.act}"][data-key="${CSS.escape(dataset.key || "")}"]`;
    if (dataset.keep) return kept(element);
    if (tagName === "SUMMARY" && parentElement.dataset.keep) return `${kept(parentElement)} > summary`;
    return tagName === "A" && element.hasAttribute("href") ? `.lf a[href="${CSS.escape(element.getAttribute("href"))}"]` : null;
  };
  let last = null;
  const [folds, scrolls] = [new Map(), new Map()];
  document.addEventListener("focusin", ({ target }) => {
    const which = named(target);
    last = which && { which, place: [...document.querySelectorAll(which)].indexOf(target) };
  });
  document.addEventListener("toggle", ({ target }) => target.dataset?.keep && folds.set(target.dataset.keep, target.open), true);
  document.addEventListener("scroll", ({ target }) => target.dataset?.keep && scrolls.set(target.dataset.keep, target.scrollTop), true);
  new MutationObserver(() => {
    for (const one of document.querySelectorAll("[data-keep]")) {
      const { keep } = one.dataset;
      if (folds.has(keep) && one.open !== folds.get(keep)) one.open = folds.get(keep);
      if (scrolls.has(keep) && one.scrollTop !== scrolls.get(keep)) one.scrollTop = scrolls.get(keep);
    }
    if (last && document.activeElement === document.body)
      document.querySelectorAll(last.which)[last.place]?.focus({ preventScroll: true });
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("pointerdown", () => (last = null), true);

  // A machine that is restored as itself goes back to its own places; one beside it to those that the form began with.
  document.addEventListener("change", ({ target }) => {
    if (target.name !== "as" || !target.form) return;
    const itself = target.value === "itself";
    for (const place of target.form.querySelectorAll('select[name^="place-"]')) {
      const file = target.form.querySelector(`[name="${place.name.replace("place-", "file-")}"]`);
      const own = place.querySelector("option[data-own]") || (file?.dataset.own && place.querySelector("option[data-file]"));
      if (!own) continue; // where it was is nowhere that a restore may go
      const first = [...place.options].find((one) => one.defaultSelected) || [...place.options].find((one) => !one.disabled);
      if (itself || place.value === own.value) place.value = (itself ? own : first).value;
      if (file?.dataset.own && (itself || file.value === file.dataset.own)) file.value = itself ? file.dataset.own : file.defaultValue;
    }
  }, true);

  // Menus close when something else is meant.
  const close = (event) =>
    document.querySelectorAll("details.lf-menu[open]").forEach((menu) => {
      if (!menu.contains(event.target) || event.key === "Escape") menu.open = false;
      if (event.key === "Escape") menu.querySelector("summary").focus();
    });
  document.addEventListener("click", close);
  document.addEventListener("keydown", (event) => event.key === "Escape" && close(event));
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("[data-theme]");
    if (chosen) window.lanfree.theme(chosen.dataset.theme);
  });
})();
