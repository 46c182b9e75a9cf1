// Loads the page again when the server has a newer one, and restores what was chosen on it.
"use strict";
(() => {
  const {version, every} = document.currentScript.dataset;
  const key = item => item.dataset.parameter ?? item.dataset.key;
  const selects = () => [...document.querySelectorAll("select")];
  const folds = () => [...document.querySelectorAll("details")];
  const label = item => item.querySelector(".label").textContent;
  const items = () => [...document.querySelectorAll("aside li")];
  const change = element => element.dispatchEvent(new Event("change"));
  const title = fold => fold.querySelector("summary").textContent.replace(/\d+/g, "");

  const kept = JSON.parse(sessionStorage.getItem("kept") ?? "null");
  sessionStorage.removeItem("kept");
  if (kept) {
    for (const select of selects()) {
      const place = [...select.options].findIndex(option => option.text === kept.selects[key(select)]);
      if (place < 0 || place === select.selectedIndex) continue;
      select.selectedIndex = place;
      change(select);
    }
    for (const item of items()) {
      const box = item.querySelector("input"), was = kept.boxes[label(item)];
      if (was !== undefined) box.checked = was;
    }
    const first = document.querySelector("aside li input");
    if (first) change(first);
    folds().forEach(fold => { if (title(fold) in kept.folds) fold.open = kept.folds[title(fold)]; });
    window.scrollTo(0, kept.scroll);
  }

  function keep() {
    sessionStorage.setItem("kept", JSON.stringify({
      selects: Object.fromEntries(selects().map(select => [key(select), select.selectedOptions[0].text])),
      boxes: Object.fromEntries(items().map(item => [label(item), item.querySelector("input").checked])),
      folds: Object.fromEntries(folds().map(fold => [title(fold), fold.open])),
      scroll: window.scrollY,
    }));
  }

  async function look() {
    const answer = await fetch("/", {method: "HEAD", cache: "no-store"}).catch(() => null);
    document.body.classList.toggle("stale", answer === null);
    if (!answer?.ok || answer.headers.get("ETag") === `"${version}"`) return;
    keep();
    location.reload();
  }
  setInterval(look, 1000 * Number(every));
})();
