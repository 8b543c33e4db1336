"use strict";
(function () {
  const all = (root, selector) => Array.from(root.querySelectorAll(selector));
  const make = (name, text) => {
    const element = document.createElement(name);
    element.type = "button";
    element.textContent = text;
    return element;
  };

  // Sorting: a heading becomes a button; numbers come from data-sort, everything else is compared as text.
  const value = (cell, isNumber) => {
    if (!cell) return "";
    const given = cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
    const number = parseFloat(given);
    return isNumber ? (Number.isNaN(number) ? -Infinity : number) : given;
  };
  for (const table of all(document, "table")) {
    const heads = all(table, "thead th");
    if (table.tBodies[0].rows.length < 2) continue;
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const isNumber = head.classList.contains("n");
      const button = make("button", head.textContent);
      button.className = "sort";
      head.textContent = "";
      head.append(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") === (isNumber ? "descending" : "none") ||
          (!isNumber && !head.hasAttribute("aria-sort"));
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = Array.from(table.tBodies[0].rows);
        rows.sort((one, two) => {
          const a = value(one.cells[column], isNumber), b = value(two.cells[column], isNumber);
          const order = isNumber ? (a > b) - (a < b) : String(a).localeCompare(String(b), "en", { numeric: true });
          return ascending ? order : -order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // Search: a box above long tables and lists of keys.
  for (const box of all(document, "[data-search]")) {
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter";
    input.setAttribute("aria-label", "Filter");
    const count = document.createElement("span");
    count.className = "muted";
    count.setAttribute("aria-live", "polite");
    const rows = all(box, "tbody tr, .keys > div");
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = wanted ? " " + shown + " of " + rows.length : "";
    });
    const line = document.createElement("p");
    line.className = "search";
    line.append(input, count);
    box.insertBefore(line, box.querySelector(".scroll, .keys"));
  }

  // Downloads: texts of CSV files, read as text and never as markup.
  const files = JSON.parse(document.getElementById("downloads").textContent);
  for (const button of all(document, "button.download")) {
    button.hidden = false;
    button.setAttribute("aria-label", "Download " + button.dataset.file);
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", files[button.dataset.file]], { type: "text/csv" }));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // Commands can be copied.
  for (const block of all(document, "pre")) {
    if (!navigator.clipboard) continue;
    const button = make("button", "Copy");
    button.className = "copy";
    button.addEventListener("click", () => navigator.clipboard.writeText(block.querySelector("code").textContent)
      .then(() => { button.textContent = "Copied"; }, () => {}));
    block.append(button);
  }

  // Where the reader is.
  const links = new Map(all(document, "nav a").map((link) => [link.hash.slice(1), link]));
  if ("IntersectionObserver" in window) {
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -70% 0px" });
    all(document, "main > section").forEach((section) => watcher.observe(section));
  }

  // Folded parts belong on paper too.
  addEventListener("beforeprint", () => all(document, "details").forEach((each) => { each.open = true; }));
}());
