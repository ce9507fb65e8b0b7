"use strict";
// Tables that sort by their headings, and long ones that show the rows that a filter asks for.
(() => {
  const FEW_ROWS = 5;
  const MANY_ROWS = 25;
  const MISSING = "–";
  const NUMBER = /^[~<>]?\s*([+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?)(\s*(%|±.*|of .*|[[(–/].*))?$/i;
  const COMPARISON = /^(.*?)(<=|>=|=|<|>)([^<>=]+)$/;
  const numberOf = (text) => {
    const found = text.match(NUMBER);
    return found ? Number(found[1].replaceAll(",", "")) : NaN;
  };
  const compact = (text) => text.toLowerCase().replace(/\s/g, "");
  const textOf = (row, column) => row.cells[column]?.textContent.trim() ?? "";

  function sort(table, rows, column, direction) {
    const known = rows.map((row) => textOf(row, column)).filter((text) => text !== MISSING);
    const isNumeric = known.every((text) => !Number.isNaN(numberOf(text)));
    const compare = (a, b) =>
      isNumeric ? numberOf(a) - numberOf(b) : a.localeCompare(b, "en", { numeric: true });
    const ordered = direction === "none" ? rows : rows.toSorted((one, other) => {
      const [a, b] = [textOf(one, column), textOf(other, column)];
      if (a === MISSING || b === MISSING) return (a === MISSING) - (b === MISSING);
      return direction === "descending" ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...ordered);
  }

  function makeSortable(table, rows) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" };
        const direction = next[heading.ariaSort] ?? "ascending";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        if (direction !== "none") heading.ariaSort = direction;
        sort(table, rows, column, direction);
      });
      heading.append(button);
    });
  }

  // `word` is anywhere in the row, `-word` nowhere; `steps>8` and `solver=rk4` ask one column.
  function isAsked(row, names, words) {
    return words.every((word) => {
      const [, name, operator, value] = word.match(COMPARISON) ?? [];
      const column = name ? names.findIndex((each) => compact(each).startsWith(name)) : -1;
      if (column >= 0) {
        const text = textOf(row, column);
        if (operator === "=") return compact(text) === value || numberOf(text) === Number(value);
        const difference = numberOf(text) - Number(value);
        return { "<": difference < 0, ">": difference > 0, "<=": difference <= 0, ">=": difference >= 0 }[operator];
      }
      const whole = row.textContent.toLowerCase();
      return word.length > 1 && word.startsWith("-") ? !whole.includes(word.slice(1)) : whole.includes(word);
    });
  }

  function makeFilterable(table, rows, title) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const bar = document.createElement("div");
    bar.className = "filter";
    const example = names.find((name, i) => name !== "trial" && /^[\w.]{1,12}$/.test(textOf(rows[0], i)));
    const input = Object.assign(document.createElement("input"), {
      type: "search",
      placeholder: example ? `Filter, such as ${compact(example)}=${textOf(rows[0], names.indexOf(example))}` : "Filter",
      title: "Shows the rows with all of these words; -word excludes rows; column>1 or column=word compares a column",
    });
    input.setAttribute("aria-label", `Filter the rows of ${title}`);
    const count = document.createElement("output");
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const hidden = rows.filter((row) => (row.hidden = !isAsked(row, names, words)));
      count.textContent = `${rows.length - hidden.length} of ${rows.length} rows`;
    };
    input.addEventListener("input", show);
    bar.append(input, count);
    table.parentElement.before(bar);
    show();
  }

  let title = document.title;
  for (const element of document.querySelectorAll("main h2, main table")) {
    if (element.tagName === "H2") {
      title = element.textContent;
      continue;
    }
    const rows = [...element.tBodies[0].rows];
    if (rows.length > FEW_ROWS) makeFilterable(element, rows, title);
    if (rows.length > 1) makeSortable(element, rows);
    if (rows.length > MANY_ROWS) Object.assign(element.parentElement, { className: "table tall", tabIndex: 0 });
  }
})();
