"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      const rows = [...table.tBodies[0].rows];
      const value = row => row.cells[column].textContent.trim().replace("−", "-");
      const numbers = rows.every(row => value(row) === "" || !isNaN(value(row)));
      rows.sort((a, b) => numbers ? value(a) - value(b) : value(a).localeCompare(value(b)));
      if (falls) rows.reverse();
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
  });
}
for (const recording of document.querySelectorAll("details")) {
  const audio = recording.querySelector("audio");
  if (!audio) continue;
  const columns = [...recording.querySelectorAll("[data-start]")];
  for (const column of columns) {
    column.addEventListener("click", () => { audio.currentTime = column.dataset.start; audio.play(); });
  }
  audio.addEventListener("timeupdate", () => {
    const heard = columns.filter(column => column.dataset.start <= audio.currentTime + 0.01);
    columns.forEach(column => column.classList.toggle("now", !audio.paused && column === heard[heard.length - 1]));
  });
}
let closed = [];
window.addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details:not([open])")]; closed.forEach(each => { each.open = true; }); });
window.addEventListener("afterprint", () => closed.forEach(each => { each.open = false; }));
