/* Ask the search of a built site, with its own files: `node ask.js SITE < questions.json`.

Prints for each question the addresses of the results, best first, as JSON. */
"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const context = vm.createContext({window: {}});
const read = name => fs.readFileSync(path.join(process.argv[2], "_static", name), "utf8");
for (const name of ["language_data.js", "sections.js", "search.js"]) {
  vm.runInContext(`${read(name)}\nvar Stemmer = window.Stemmer;`, context);
}
context.questions = JSON.parse(fs.readFileSync(0, "utf8"));
const found = vm.runInContext(`(() => {
  const search = SiteSearch.searcher(SECTIONS);
  return questions.map(question => search(question).map(({section: {page, anchor}}) =>
    page + (anchor && "#" + anchor)));
})()`, context);
process.stdout.write(JSON.stringify(found));
