"use strict";
// Sorts tables by their headers, and hides what the filters leave out. The page is complete without it.
(function () {
  const $ = (selector, from) => Array.from((from || document).querySelectorAll(selector));
  const filters = document.getElementById("filters");

  function order(cell) {
    return cell ? (cell.dataset.order || cell.textContent.trim()) : "";
  }

  function compare(a, b) {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  }

  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0];
    const column = Array.from(header.parentNode.children).indexOf(header);
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    $("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = Array.from(body.rows).map((row) => [order(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // nothing known: last
      return ascending ? compare(a, b) : compare(b, a);
    });
    body.append(...rows.map(([, row]) => row));
  }

  function filter() {
    const value = (name) => filters.elements[name].value;
    const task = value("task"), method = value("method"), seed = value("seed");
    const words = value("words").toLowerCase().split(/\s+/).filter(Boolean);
    $("section.task").forEach((part) => part.classList.toggle("hidden", task !== "" && part.dataset.task !== task));
    let shown = 0, all = 0;
    $("[data-method]").forEach((row) => {
      const text = row.textContent.toLowerCase();
      const own = row.closest("[data-task]");
      const fits = (task === "" || !own || own.dataset.task === task)
        && (method === "" || row.dataset.method === method)
        && (seed === "" || row.dataset.seeds.split(" ").includes(seed))
        && words.every((word) => text.includes(word));
      row.classList.toggle("hidden", !fits);
      if (row.classList.contains("run")) { all += 1; shown += fits ? 1 : 0; }
    });
    document.getElementById("count").textContent = `${shown} of ${all} runs`;
  }

  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) {
      if (part.tagName === "DETAILS") part.open = true;
    }
    target.scrollIntoView();
  }

  $("th button").forEach((button) => button.addEventListener("click", () => sort(button.parentNode)));
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  window.addEventListener("hashchange", open);
  filters.classList.remove("hidden");
  filter();
  open();
})();
