/* Ask the search of a built site, with its own files: `node ask.js SITE < asked.json`.

Reads {questions, sections}; without sections, those of the site. Prints for each question the
results, best first, as JSON: [[address, excerpt], ...]. */
"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const context = vm.createContext({window: {}});
const read = name => fs.readFileSync(path.join(process.argv[2], "_static", name), "utf8");
for (const name of ["language_data.js", "sections.js", "search.js"]) {
  vm.runInContext(`${read(name)}\nvar Stemmer = window.Stemmer;`, context);
}
context.asked = JSON.parse(fs.readFileSync(0, "utf8"));
const found = vm.runInContext(`(() => {
  const search = SiteSearch.searcher(asked.sections || SECTIONS);
  return asked.questions.map(question =>
    search(question).map(({section: {page, anchor, text}, terms}) => [
      page + (anchor && "#" + anchor),
      SiteSearch.excerpt(text, terms).map(([word]) => word).join(" "),
    ]));
})()`, context);
process.stdout.write(JSON.stringify(found));
